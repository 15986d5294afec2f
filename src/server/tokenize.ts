import type { EngineSpec } from '../engine/messages.js';
import { InferenceError } from '../errors.js';
import type { TokenizeRequest, TokenizeResponse } from '../gen/darkroom/v1/inference_service.js';
import { PromptSyntax } from '../gen/darkroom/v1/job.js';
import { type AnyFamily, type Families, familyNamed, type PromptTokenizer, titlesOf } from '../pipelines/family.js';
import type { AddOnRegistry } from './request/add-on-registry.js';
import { countEmbeddings } from './request/embeddings.js';
import { promptSyntaxes } from './request/plan-prompt.js';

/**
 * Opens the tokenizer of each model once. The server counts tokens itself: the engine may be blocked in a run for
 * seconds.
 */
export class TokenizerCache {
  readonly #families: Families;
  readonly #tokenizers = new Map<string, Promise<PromptTokenizer>>();

  constructor(families: Families) {
    this.#families = families;
  }

  /** @throws InferenceError MODEL_UNSUPPORTED for a family that Tokenize does not serve */
  async of({ model, family: name, source }: EngineSpec): Promise<PromptTokenizer> {
    const family = familyNamed(this.#families, name);
    if (family.openTokenizer === undefined) {
      const served = titlesOf(this.#families, ({ openTokenizer }) => openTokenizer !== undefined);
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `model "${model}" is of the family ${name}; Tokenize serves ${served}`,
      );
    }
    let tokenizer = this.#tokenizers.get(model);
    if (tokenizer === undefined) {
      tokenizer = family.openTokenizer(source);
      this.#tokenizers.set(model, tokenizer);
      // A file that cannot be read now may be readable next time.
      tokenizer.catch(() => this.#tokenizers.delete(model));
    }
    return tokenizer;
  }
}

const SYNTAXES: typeof promptSyntaxes = { ...promptSyntaxes, [PromptSyntax.PROMPT_SYNTAX_UNSPECIFIED]: 'weighted' };

interface TokenizeOptions {
  readonly limitBytes: number;
  readonly family: AnyFamily;
  readonly embedding: AddOnRegistry<'embedding'>;
}

/** @throws InferenceError INVALID_REQUEST; EMBEDDING_NOT_FOUND and faults of an embedding */
export function tokenize(
  { text, promptSyntax }: TokenizeRequest,
  tokenizer: PromptTokenizer,
  { limitBytes, family, embedding }: TokenizeOptions,
): TokenizeResponse {
  const refuse = (field: string, description: string): never => {
    throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field, description }] });
  };
  const bytes = Buffer.byteLength(text);
  if (bytes > limitBytes)
    refuse('text', `text of ${bytes} bytes must be <= ${limitBytes}; shorten it or raise LIMIT_PROMPT_BYTES`);
  const syntax =
    SYNTAXES[promptSyntax] ?? refuse('prompt_syntax', 'prompt_syntax is unknown; use a value of PromptSyntax');
  const read = countEmbeddings(text, syntax, family, embedding);
  const { encoders, phrases, report } = tokenizer.tokenize(read.text, syntax, read.embeddings);
  return {
    problem: report.problem ?? '',
    phrases: phrases.map(({ text: phrase, weight, tokens }) => ({ text: phrase, weight, tokens })),
    encoders: encoders.map(({ encoder, chunks, tokens, dropped }) => ({
      encoder,
      ids: chunks.flatMap((ids) => [...ids]),
      chunks: chunks.length,
      tokens,
      dropped,
    })),
  };
}
