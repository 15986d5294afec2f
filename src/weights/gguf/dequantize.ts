import { float16Table } from '../half-floats.js';
import { type Dequantizer, kDequantizers, kQuantTypes } from './dequantize-k.js';
import { tensorTypes } from './gguf-types.js';

/** Block types that `dequantize` knows. Those with a table of their own (IQ…) and the ternary ones are not among them. */
export const quantizedTypes = ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', ...kQuantTypes] as const;
export type QuantizedType = (typeof quantizedTypes)[number];

/** Elements of a block of every type without a K in its name. */
const BLOCK = 32;
const HALF = BLOCK / 2;

export function isQuantized(type: string): type is QuantizedType {
  return quantizedTypes.some((known) => known === type);
}

/** Elements and bytes of one block. */
export function blockOf(type: QuantizedType): { readonly elements: number; readonly bytes: number } {
  const found = sizes.get(type);
  if (found === undefined) throw new Error(`${type} has no size`);
  return found;
}

const sizes = new Map(
  [...tensorTypes.values()].map(({ name, blockElements, blockBytes }) => [
    name,
    { elements: blockElements, bytes: blockBytes },
  ]),
);

/**
 * The numbers of whole blocks, in order. Every product and sum rounds to float32, as in ggml's own arithmetic.
 * https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/src/ggml-quants.c (dequantize_row_…), layouts in
 * https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/src/ggml-common.h
 *
 * @throws RangeError for bytes that are no whole number of blocks
 */
export function dequantize(type: QuantizedType, stored: Uint8Array): Float32Array {
  const { elements, bytes } = blockOf(type);
  if (stored.length % bytes !== 0)
    throw new RangeError(`${stored.length} bytes are no whole number of ${type} blocks, which have ${bytes}`);
  const values = new Float32Array((stored.length / bytes) * elements);
  dequantizers[type](stored, values);
  return values;
}

const dequantizers: Readonly<Record<QuantizedType, Dequantizer>> = {
  // Scale, 16 bytes: the first half of the elements in the low nibbles, the second in the high ones.
  Q4_0: (stored, values) => {
    const halves = float16Table();
    for (let at = 0, y = 0; y < values.length; at += 18, y += BLOCK) {
      const d = half(halves, stored, at);
      for (let i = 0; i < HALF; i += 1) {
        const q = stored[at + 2 + i] ?? 0;
        values[y + i] = d * ((q & 15) - 8);
        values[y + i + HALF] = d * ((q >> 4) - 8);
      }
    }
  },
  // Scale, minimum, nibbles.
  Q4_1: (stored, values) => {
    const halves = float16Table();
    for (let at = 0, y = 0; y < values.length; at += 20, y += BLOCK) {
      const d = half(halves, stored, at);
      const m = half(halves, stored, at + 2);
      for (let i = 0; i < HALF; i += 1) {
        const q = stored[at + 4 + i] ?? 0;
        values[y + i] = Math.fround(d * (q & 15)) + m;
        values[y + i + HALF] = Math.fround(d * (q >> 4)) + m;
      }
    }
  },
  // Scale, the fifth bit of each element, nibbles.
  Q5_0: (stored, values) => {
    const halves = float16Table();
    for (let at = 0, y = 0; y < values.length; at += 22, y += BLOCK) {
      const d = half(halves, stored, at);
      const fifths = bits32(stored, at + 2);
      for (let i = 0; i < HALF; i += 1) {
        const q = stored[at + 6 + i] ?? 0;
        values[y + i] = d * (((q & 15) | (((fifths >>> i) & 1) << 4)) - 16);
        values[y + i + HALF] = d * (((q >> 4) | (((fifths >>> (i + HALF)) & 1) << 4)) - 16);
      }
    }
  },
  // Scale, minimum, the fifth bits, nibbles.
  Q5_1: (stored, values) => {
    const halves = float16Table();
    for (let at = 0, y = 0; y < values.length; at += 24, y += BLOCK) {
      const d = half(halves, stored, at);
      const m = half(halves, stored, at + 2);
      const fifths = bits32(stored, at + 4);
      for (let i = 0; i < HALF; i += 1) {
        const q = stored[at + 8 + i] ?? 0;
        values[y + i] = Math.fround(d * ((q & 15) | (((fifths >>> i) & 1) << 4))) + m;
        values[y + i + HALF] = Math.fround(d * ((q >> 4) | (((fifths >>> (i + HALF)) & 1) << 4))) + m;
      }
    }
  },
  // Scale, signed bytes.
  Q8_0: (stored, values) => {
    const halves = float16Table();
    for (let at = 0, y = 0; y < values.length; at += 34, y += BLOCK) {
      const d = half(halves, stored, at);
      for (let i = 0; i < BLOCK; i += 1) values[y + i] = d * (((stored[at + 2 + i] ?? 0) << 24) >> 24);
    }
  },
  ...kDequantizers,
};

function half(halves: Float32Array, stored: Uint8Array, at: number): number {
  return halves[(stored[at] ?? 0) | ((stored[at + 1] ?? 0) << 8)] ?? 0;
}

function bits32(stored: Uint8Array, at: number): number {
  return (
    (stored[at] ?? 0) | ((stored[at + 1] ?? 0) << 8) | ((stored[at + 2] ?? 0) << 16) | ((stored[at + 3] ?? 0) << 24)
  );
}
