import type { EngineSpec } from '../engine/messages.js';
import { InferenceError } from '../errors.js';
import type { TokenizeRequest, TokenizeResponse } from '../gen/darkroom/v1/inference_service.js';
import { PromptSyntax } from '../gen/darkroom/v1/job.js';
import { openSdxlCheckpoint } from '../pipelines/sdxl/checkpoint/checkpoint.js';
import { describePrompt } from '../pipelines/sdxl/prompt/tokenize.js';
import type { ClipTokenizer } from '../tokenizer/clip.js';
import { promptSyntaxes } from './request/resolve.js';

/** Reads the tokenizers of a model once. Tokens are told here, not by the engine: it may sit in a run for seconds. */
export class TokenizerShelf {
  readonly #tokenizers = new Map<string, Promise<readonly ClipTokenizer[]>>();

  /** @throws InferenceError MODEL_UNSUPPORTED for a model that is no SDXL */
  of(spec: EngineSpec): Promise<readonly ClipTokenizer[]> {
    if (spec.family !== 'sdxl') {
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `model "${spec.model}" is of the family ${spec.family}; Tokenize serves SDXL`,
      );
    }
    const { model, source } = spec;
    let tokenizers = this.#tokenizers.get(model);
    if (tokenizers === undefined) {
      tokenizers = openSdxlCheckpoint(source).then((checkpoint) => checkpoint.readTokenizers());
      this.#tokenizers.set(model, tokenizers);
      // What could not be read may be readable next time.
      tokenizers.catch(() => this.#tokenizers.delete(model));
    }
    return tokenizers;
  }
}

const ENCODERS = ['text_encoder', 'text_encoder_2'] as const;

const SYNTAXES: typeof promptSyntaxes = { ...promptSyntaxes, [PromptSyntax.PROMPT_SYNTAX_UNSPECIFIED]: 'weighted' };

/** @throws InferenceError INVALID_REQUEST */
export function tokenize(
  { text, promptSyntax }: TokenizeRequest,
  tokenizers: readonly ClipTokenizer[],
  limitBytes: number,
): TokenizeResponse {
  const refuse = (field: string, description: string): never => {
    throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field, description }] });
  };
  const bytes = Buffer.byteLength(text);
  if (bytes > limitBytes)
    refuse('text', `text of ${bytes} bytes must be <= ${limitBytes}; shorten it or raise LIMIT_PROMPT_BYTES`);
  const syntax =
    SYNTAXES[promptSyntax] ?? refuse('prompt_syntax', 'prompt_syntax is unknown; use a value of PromptSyntax');
  const { encoders, fragments, report } = describePrompt(tokenizers, text, syntax);
  return {
    problem: report.problem ?? '',
    phrases: fragments.map(({ text: phrase, weight, tokens }) => ({ text: phrase, weight, tokens })),
    encoders: encoders.map(({ chunks, tokens, dropped }, i) => ({
      encoder: ENCODERS[i] ?? '',
      ids: chunks.flatMap((ids) => [...ids]),
      chunks: chunks.length,
      tokens,
      dropped,
    })),
  };
}
