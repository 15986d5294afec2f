import { join32 } from '../../../std/concat-float32.js';
import { type ClipTokenizer, fitTokens } from '../../../tokenizer/clip.js';
import { EmbeddingNames } from '../../embeddings/embedding-names.js';
import type { Embedding } from '../../embeddings/read-embedding.js';
import type { CountedEmbedding } from '../../family.js';

/** Ids from here on are vectors of embeddings: no vocabulary is so large. */
export const FIRST_LEARNED = 2 ** 24;

export function countsOf({ name, encoders }: Embedding): CountedEmbedding {
  return { name, counts: encoders.map((vectors) => vectors?.count ?? 0) };
}

/**
 * A tokenizer that reads the names of embeddings as tokens, one a vector. The ids are FIRST_LEARNED and up, in the order of the
 * embeddings. A chunk ends before or behind an embedding, not within it.
 * @param encoder index of the tokenizer's encoder
 */
export function withEmbeddings(
  tokenizer: ClipTokenizer,
  embeddings: readonly CountedEmbedding[],
  encoder: number,
): ClipTokenizer {
  const known = embeddings.filter(({ counts }) => (counts[encoder] ?? 0) > 0);
  if (known.length === 0) return tokenizer;
  const names = new EmbeddingNames(known.map(({ name }) => name));
  const ids = new Map<string, readonly number[]>();
  const last = new Set<number>();
  let next = FIRST_LEARNED;
  for (const { name, counts } of known) {
    const own = Array.from({ length: counts[encoder] ?? 0 }, (_, i) => next + i);
    next += own.length;
    last.add(next - 1);
    ids.set(name, own);
  }
  const tokenize = (text: string): readonly number[] =>
    names
      .split(text)
      .flatMap((part) => (part.kind === 'name' ? (ids.get(part.name) ?? []) : tokenizer.tokenize(part.text)));
  return {
    ...tokenizer,
    tokenize,
    encode(text) {
      const tokens = tokenize(text);
      return { ids: fitTokens(tokenizer, tokens), length: tokens.length + 2 };
    },
    piece(id) {
      if (id < FIRST_LEARNED) return tokenizer.piece(id);
      return last.has(id) ? '<learned></w>' : '<learned>';
    },
  };
}

/** The vectors of all embeddings of one encoder, in the order of their ids: [N, C]. Undefined: none. */
export function learnedRows(embeddings: readonly Embedding[], encoder: number): Float32Array | undefined {
  const own = embeddings.flatMap(({ encoders }) => encoders[encoder]?.values ?? []);
  return own.length === 0 ? undefined : join32(own);
}
