import type { ClipTokenizer } from '../../../tokenizer/clip.js';
import type { Fragment } from './prompt-fragments.js';

export interface TextChunk {
  /** [L]: begin, tokens, end, padding. */
  readonly ids: Int32Array;
  /** [L]: the weight of every position; 1 for what is not text. */
  readonly weights: Float32Array;
}

/** A text as one encoder takes it. L is the tokenizer's `maxLength`. */
export interface TextChunks {
  /** At least one. */
  readonly chunks: readonly TextChunk[];
  /** Fragments whose weight is below 1, with the positions from their first token to their last, all chunks end to end. */
  readonly lowered: readonly { readonly weight: number; readonly from: number; readonly to: number }[];
  /** Tokens of each fragment. */
  readonly counts: readonly number[];
  /** Tokens beyond the last chunk. */
  readonly dropped: number;
}

/** Pieces that may end a chunk, the best first. https://github.com/damian0815/compel/blob/main/src/compel/embeddings_provider.py#L387 */
const endings: readonly ((piece: string) => boolean)[] = [
  (piece) => piece === '.</w>',
  (piece) => ['.</w>', ',</w>', ';</w>', ':</w>'].includes(piece),
  (piece) => piece.endsWith('</w>'),
];

/**
 * Tokenizes each fragment by itself and cuts the tokens into chunks: after the last sentence that fits, else the last phrase, else
 * the last word.
 *
 * https://github.com/damian0815/compel/blob/main/src/compel/embeddings_provider.py#L423
 *
 * @param maxChunks what does not fit into as many is dropped
 * @param full fills each chunk, whatever it ends with
 */
export function chunkText(
  tokenizer: ClipTokenizer,
  fragments: readonly Fragment[],
  maxChunks: number,
  full = false,
): TextChunks {
  const { maxLength } = tokenizer;
  const texts = fragments.map(({ text }) => tokenizer.tokenize(text));
  const tokens = texts.flat();
  const tokenWeights = fragments.flatMap(({ weight }, i) => new Array<number>(texts[i]?.length ?? 0).fill(weight));
  const chunks: TextChunk[] = [];
  const positions: number[] = [];
  let at = 0;
  do {
    const length = full ? maxLength - 2 : chunkLength(tokenizer, tokens, at);
    const taken = tokens.slice(at, at + length);
    const ids = new Int32Array(maxLength).fill(tokenizer.pad);
    ids.set([tokenizer.begin, ...taken, tokenizer.end]);
    const weights = new Float32Array(maxLength).fill(1);
    weights.set(tokenWeights.slice(at, at + length), 1);
    for (let i = 1; i <= taken.length; i += 1) positions.push(chunks.length * maxLength + i);
    chunks.push({ ids, weights });
    at += taken.length;
  } while (at < tokens.length && chunks.length < maxChunks);
  const counts = texts.map((text) => text.length);
  return { chunks, lowered: loweredSpans(fragments, counts, positions), counts, dropped: tokens.length - at };
}

/** Tokens of the chunk that begins at `from`. */
function chunkLength(tokenizer: ClipTokenizer, tokens: readonly number[], from: number): number {
  const room = tokenizer.maxLength - 2;
  if (tokens.length - from <= room) return tokens.length - from;
  for (const ends of endings) {
    for (let length = room; length > 0; length -= 1) {
      if (ends(tokenizer.piece(tokens[from + length - 1] ?? -1))) return length;
    }
  }
  return room;
}

function loweredSpans(
  fragments: readonly Fragment[],
  counts: readonly number[],
  positions: readonly number[],
): TextChunks['lowered'] {
  let end = 0;
  return fragments.flatMap(({ weight }, i) => {
    const begin = end;
    end += counts[i] ?? 0;
    // Dropped tokens have no position.
    const [from, to] = [positions[begin], positions[Math.min(end, positions.length) - 1]];
    return weight < 1 && end > begin && from !== undefined && to !== undefined ? [{ weight, from, to }] : [];
  });
}
