import type { ClipTokenizer } from '../../../tokenizer/clip.js';
import type { PromptTokenizer } from '../../family.js';
import type { PromptReport, PromptSyntax } from '../../pipeline.js';
import { openSdxlCheckpoint, type SdxlSource } from '../checkpoint/checkpoint.js';
import { withEmbeddings } from './prompt-embeddings.js';
import { planPrompt } from './prompt-plan.js';

const ENCODERS = ['text_encoder', 'text_encoder_2'] as const;

/** Opens the tokenizers of a checkpoint's two text encoders. @throws InferenceError CHECKPOINT_INVALID */
export async function openPromptTokenizer(source: SdxlSource): Promise<PromptTokenizer> {
  const checkpoint = await openSdxlCheckpoint(source);
  const tokenizers = await checkpoint.readTokenizers();
  return {
    tokenize(text, syntax, embeddings = []) {
      const reading = tokenizers.map((tokenizer, i) => withEmbeddings(tokenizer, embeddings, i));
      const { encoders, fragments, report } = describePrompt(reading, text, syntax);
      return {
        encoders: encoders.map((tokens, i) => ({ encoder: ENCODERS[i] ?? '', ...tokens })),
        phrases: fragments,
        report,
      };
    },
  };
}

/** A prompt as it would be read, found without a network. */
export interface PromptTokens {
  /** In the order of the tokenizers. */
  readonly encoders: readonly EncoderTokens[];
  /** Every stretch of text under one weight, in order; text without a weight has 1. */
  readonly fragments: readonly WeightedText[];
  readonly report: PromptReport;
}

export interface EncoderTokens {
  /** Ids of each chunk: begin, tokens, end, padding. Prompts of an operator follow each other. */
  readonly chunks: readonly Int32Array[];
  /** Begin, end and padding not counted; dropped ones are. */
  readonly tokens: number;
  readonly dropped: number;
}

export interface WeightedText {
  readonly text: string;
  readonly weight: number;
  /** Tokens of the encoder that needs more. */
  readonly tokens: number;
  /** Index of the prompt within `.and()` or `.blend()`; 0 without them. */
  readonly prompt: number;
}

/** Never throws because of the prompt's text: weights that cannot be read are text, and `report.problem` has the reason. */
export function describePrompt(tokenizers: readonly ClipTokenizer[], text: string, syntax: PromptSyntax): PromptTokens {
  const { parsed, encoders, report } = planPrompt(tokenizers, text, syntax);
  const fragments = parsed.prompts.flatMap((prompt, p) =>
    prompt.map((fragment, f) => {
      const tokens = Math.max(...encoders.map((texts) => texts[p]?.counts[f] ?? 0));
      return { ...fragment, tokens, prompt: p };
    }),
  );
  return {
    encoders: encoders.map((texts) => ({
      chunks: texts.flatMap(({ chunks }) => chunks.map(({ ids }) => ids)),
      tokens: total(texts.flatMap(({ counts }) => counts)),
      dropped: total(texts.map(({ dropped }) => dropped)),
    })),
    fragments,
    report,
  };
}

function total(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0);
}
