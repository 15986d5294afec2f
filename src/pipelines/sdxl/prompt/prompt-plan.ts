import type { ClipTokenizer } from '../../../tokenizer/clip.js';
import type { PromptReport, PromptSyntax } from '../../pipeline.js';
import { chunkText, type TextChunks } from './prompt-chunks.js';
import { PromptSyntaxError } from './prompt-syntax-error.js';
import { type ParsedPrompt, parsePrompt, plainPrompt } from './prompt-weights.js';

/** A prompt parsed and cut into chunks, before any network runs. */
export interface PromptPlan {
  readonly parsed: ParsedPrompt;
  /** Chunks of each encoder, for each prompt of an operator. */
  readonly encoders: readonly (readonly TextChunks[])[];
  readonly report: PromptReport;
}

/** Bounds the memory of cross-attention. The 16 KB that a prompt may have are about 60 chunks of English. */
const MAX_CHUNKS = 64;

/** Parses and tokenizes a prompt; never throws for its text. */
export function planPrompt(tokenizers: readonly ClipTokenizer[], prompt: string, syntax: PromptSyntax): PromptPlan {
  const { parsed, problem } = read(prompt, syntax);
  const encoders = tokenizers.map((tokenizer) => {
    let room = syntax === 'diffusers' ? 1 : MAX_CHUNKS;
    return parsed.prompts.map((fragments) => {
      const text = chunkText(tokenizer, fragments, Math.max(1, room), syntax === 'diffusers');
      room -= text.chunks.length;
      return text;
    });
  });
  const largest = (of: (texts: readonly TextChunks[]) => number) => Math.max(...encoders.map(of));
  const sum = (texts: readonly TextChunks[], of: (text: TextChunks) => number) =>
    texts.reduce((total, text) => total + of(text), 0);
  const report: PromptReport = {
    chunks: largest((texts) => chunkCount(parsed, texts)),
    tokens: largest((texts) => sum(texts, ({ counts }) => counts.reduce((a, b) => a + b, 0))),
    dropped: largest((texts) => sum(texts, ({ dropped }) => dropped)),
    strategy: problem !== undefined ? 'fallback' : parsed.weighted ? 'compel' : 'none',
    ...(problem !== undefined && { problem }),
  };
  return { parsed, encoders, report };
}

/** Chunks of the embeddings: a blend's prompts lie over each other, others one after the other. */
export function chunkCount({ kind }: ParsedPrompt, prompts: readonly TextChunks[]): number {
  const counts = prompts.map(({ chunks }) => chunks.length);
  return kind === 'blend' ? Math.max(...counts) : counts.reduce((a, b) => a + b, 0);
}

function read(prompt: string, syntax: PromptSyntax): { parsed: ParsedPrompt; problem?: string } {
  if (syntax !== 'weighted') return { parsed: plainPrompt(prompt) };
  try {
    return { parsed: parsePrompt(prompt) };
  } catch (error) {
    if (!(error instanceof PromptSyntaxError)) throw error;
    return { parsed: plainPrompt(prompt), problem: error.message };
  }
}
