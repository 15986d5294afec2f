import type { TextChunks } from './prompt-chunks.js';

/** One row of a text encoder's batch. */
export interface TextRow {
  /** [L] */
  readonly ids: Int32Array;
  /** First and last position that no token may see. */
  readonly hidden?: readonly [number, number];
}

/** A chunk as it stands, and again without each of its fragments whose weight is below 1. */
export interface ChunkRows {
  readonly row: TextRow;
  /** [L] */
  readonly weights: Float32Array;
  readonly without: readonly { readonly row: TextRow; readonly share: number }[];
}

/** A fragment of weight 0 has no finite share. https://github.com/damian0815/compel/blob/main/src/compel/embeddings_provider.py#L220 */
const SMALLEST_WEIGHT = 1e-5;

/**
 * The rows to run for a text. The chunk without a fragment takes part with tan((1 - weight) pi/2) against 1 for the chunk as it stands:
 * none at weight 1, as much at 0.5, all at 0. A share here is of their sum over all lowered fragments of the text.
 *
 * A fragment over two chunks hides what lies between: the end and the padding of the first, too, but neither first nor last position.
 *
 * https://github.com/damian0815/compel/blob/main/src/compel/embeddings_provider.py#L181
 */
export function chunkRows({ chunks, lowered }: TextChunks): readonly ChunkRows[] {
  const factors = lowered.map(({ weight }) => Math.tan(((1 - Math.max(SMALLEST_WEIGHT, weight)) * Math.PI) / 2));
  const sum = factors.reduce((total, factor) => total + factor, 1);
  return chunks.map(({ ids, weights }, index) => {
    const { length } = ids;
    const without = lowered.flatMap(({ from, to }, i) => {
      const first = Math.max(1, from - index * length);
      const last = Math.min(length - 2, to - index * length);
      if (first > last) return [];
      return [{ row: { ids, hidden: [first, last] as const }, share: (factors[i] ?? 0) / sum }];
    });
    return { row: { ids }, weights, without };
  });
}

/**
 * Scales what sets each token's state apart from the empty prompt's by the token's weight.
 * states, empty: [L, C]  weights: [L]  ->  [L, C]
 *
 * https://github.com/damian0815/compel/blob/main/src/compel/embeddings_provider.py#L525
 */
export function weighStates(states: Float32Array, weights: Float32Array, empty: Float32Array): Float32Array {
  const width = states.length / weights.length;
  return states.map((state, i) => {
    const weight = weights[Math.floor(i / width)] ?? 1;
    return weight === 1 ? state : lerp(empty[i] ?? 0, state, weight);
  });
}

/** Moves states towards others by their shares: states (1 - sum of shares) + sum of others' shares. [L, C] */
export function mixStates(
  states: Float32Array,
  others: readonly { readonly states: Float32Array; readonly share: number }[],
): Float32Array {
  return states.map((state, i) =>
    others.reduce((sum, other) => sum + ((other.states[i] ?? 0) - state) * other.share, state),
  );
}

/** The sum of several texts' states, each times its weight; shorter ones go on as the empty prompt. [T, C] */
export function blendStates(
  prompts: readonly Float32Array[],
  weights: readonly number[],
  empty: Float32Array,
): Float32Array {
  const length = Math.max(...prompts.map((states) => states.length));
  const padded = prompts.map((states) => padStates(states, length, empty));
  return Float32Array.from({ length }, (_, i) =>
    padded.reduce((sum, states, k) => sum + (states[i] ?? 0) * (weights[k] ?? 0), 0),
  );
}

/** Several texts' states one after the other, each moved from the empty prompt's by its weight. [T, C] */
export function joinStates(
  prompts: readonly Float32Array[],
  weights: readonly number[],
  empty: Float32Array,
): Float32Array {
  const joined = new Float32Array(prompts.reduce((length, states) => length + states.length, 0));
  let offset = 0;
  for (const [k, states] of prompts.entries()) {
    const weight = weights[k] ?? 1;
    joined.set(
      weight === 1 ? states : states.map((state, i) => lerp(empty[i % empty.length] ?? 0, state, weight)),
      offset,
    );
    offset += states.length;
  }
  return joined;
}

/** Adds the empty prompt's states until there are `length` elements. https://github.com/damian0815/compel/blob/main/src/compel/compel.py#L275 */
export function padStates(states: Float32Array, length: number, empty: Float32Array): Float32Array {
  if (states.length === length) return states;
  const padded = Float32Array.from({ length }, (_, i) => empty[i % empty.length] ?? 0);
  padded.set(states);
  return padded;
}

// [T, A] and [T, B] -> [T, A+B]
export function sideBySide(a: Float32Array, b: Float32Array, tokens: number): Float32Array {
  const [wide, narrow] = [a.length / tokens, b.length / tokens];
  const rows = new Float32Array(a.length + b.length);
  for (let t = 0; t < tokens; t += 1) {
    rows.set(a.subarray(t * wide, (t + 1) * wide), t * (wide + narrow));
    rows.set(b.subarray(t * narrow, (t + 1) * narrow), t * (wide + narrow) + wide);
  }
  return rows;
}

function lerp(from: number, to: number, share: number): number {
  return from + (to - from) * share;
}
