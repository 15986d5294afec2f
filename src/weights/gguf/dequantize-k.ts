/** The K types: blocks of 256 elements in groups of 16 or 32, whose scales are integers times one or two binary16 numbers. */
import { float16Table } from '../half-floats.js';

/** Bytes of whole blocks -> one float32 for each of their elements. */
export type Dequantizer = (stored: Uint8Array, values: Float32Array) => void;

export const kQuantTypes = ['Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K'] as const;

export const kDequantizers: Readonly<Record<(typeof kQuantTypes)[number], Dequantizer>> = {
  // 16 scales and minimums of 4 bits, 64 bytes of 2-bit elements, scale and minimum of the scales.
  Q2_K: (stored, values) => {
    for (let at = 0, y = 0; y < values.length; at += 84) {
      const d = half(stored, at + 80);
      const dmin = half(stored, at + 82);
      for (let group = 0; group < 16; group += 1) {
        const packed = stored[at + group] ?? 0;
        const scale = Math.fround(d * (packed & 15));
        const min = Math.fround(dmin * (packed >> 4));
        const { first, shift } = twoBits(at + 16, group);
        for (let i = 0; i < 16; i += 1, y += 1)
          values[y] = Math.fround(scale * (((stored[first + i] ?? 0) >> shift) & 3)) - min;
      }
    }
  },
  // The third bits in 32 bytes, 64 bytes of 2-bit elements, 16 scales of 6 bits in 12 bytes, scale of the scales.
  Q3_K: (stored, values) => {
    for (let at = 0, y = 0; y < values.length; at += 110) {
      const d = half(stored, at + 108);
      for (let group = 0; group < 16; group += 1) {
        const low = (stored[at + 96 + (group % 8)] ?? 0) >> (group < 8 ? 0 : 4);
        const high = (stored[at + 104 + (group % 4)] ?? 0) >> (2 * (group >> 2));
        const scale = Math.fround(d * (((low & 15) | ((high & 3) << 4)) - 32));
        const { first, shift } = twoBits(at + 32, group);
        const third = at + 16 * (group % 2);
        for (let i = 0; i < 16; i += 1, y += 1) {
          const q = ((stored[first + i] ?? 0) >> shift) & 3;
          // A third bit that is not set stands for -4.
          values[y] = scale * (q - (((stored[third + i] ?? 0) >> (group >> 1)) & 1 ? 0 : 4));
        }
      }
    }
  },
  Q4_K: scaledNibbles({ fifthBytes: 0 }),
  Q5_K: scaledNibbles({ fifthBytes: 32 }),
  // 128 bytes of nibbles, 64 bytes of the upper two bits, 16 scales that are signed bytes, scale of the scales.
  Q6_K: (stored, values) => {
    for (let at = 0, y = 0; y < values.length; at += 210) {
      const d = half(stored, at + 208);
      for (let group = 0; group < 16; group += 1) {
        const scale = Math.fround(d * (((stored[at + 192 + group] ?? 0) << 24) >> 24));
        // A half of the block is 64 bytes of nibbles, low ones first, and 32 bytes of upper bits.
        const [side, row, column] = [group >> 3, (group >> 1) & 3, 16 * (group & 1)];
        const first = at + 64 * side + 32 * (row & 1) + column;
        const shift = row < 2 ? 0 : 4;
        const upper = at + 128 + 32 * side + column;
        for (let i = 0; i < 16; i += 1, y += 1) {
          const low = ((stored[first + i] ?? 0) >> shift) & 15;
          const high = ((stored[upper + i] ?? 0) >> (2 * row)) & 3;
          values[y] = scale * ((low | (high << 4)) - 32);
        }
      }
    }
  },
};

/**
 * Scale and minimum of the scales, 8 scales and 8 minimums of 6 bits in 12 bytes, the fifth bits of elements that have them, nibbles. Bit n
 * of each byte of fifth bits is of group n.
 * @param fifthBytes 0: elements of 4 bits
 */
function scaledNibbles({ fifthBytes }: { readonly fifthBytes: 0 | 32 }): Dequantizer {
  const blockBytes = 144 + fifthBytes;
  const fifthMask = fifthBytes === 0 ? 0 : 16;
  return (stored, values) => {
    for (let at = 0, y = 0; y < values.length; at += blockBytes) {
      const d = half(stored, at);
      const dmin = half(stored, at + 2);
      for (let group = 0; group < 8; group += 1) {
        const scale = Math.fround(d * sixBitScale(stored, at + 4, group));
        const min = Math.fround(dmin * sixBitMin(stored, at + 4, group));
        const fifths = at + 16;
        const nibbles = fifths + fifthBytes + 32 * (group >> 1);
        const shift = 4 * (group & 1);
        for (let i = 0; i < 32; i += 1, y += 1) {
          const fifth = (((stored[fifths + i] ?? 0) >> group) << 4) & fifthMask;
          values[y] = Math.fround(scale * ((((stored[nibbles + i] ?? 0) >> shift) & 15) | fifth)) - min;
        }
      }
    }
  };
}

/** Where the 16 elements of a group lie: 32 bytes hold the same two bits of two groups, and 8 groups fill them. */
function twoBits(start: number, group: number): { readonly first: number; readonly shift: number } {
  return { first: start + 32 * (group >> 3) + 16 * (group & 1), shift: 2 * ((group >> 1) & 3) };
}

/** The first four lie in 6 bits of a byte each; of the others the upper two bits lie in what these leave free. */
function sixBitScale(stored: Uint8Array, at: number, group: number): number {
  if (group < 4) return (stored[at + group] ?? 0) & 63;
  return ((stored[at + group + 4] ?? 0) & 15) | (((stored[at + group - 4] ?? 0) >> 6) << 4);
}

function sixBitMin(stored: Uint8Array, at: number, group: number): number {
  if (group < 4) return (stored[at + group + 4] ?? 0) & 63;
  return ((stored[at + group + 4] ?? 0) >> 4) | (((stored[at + group] ?? 0) >> 6) << 4);
}

function half(stored: Uint8Array, at: number): number {
  return float16Table()[(stored[at] ?? 0) | ((stored[at + 1] ?? 0) << 8)] ?? 0;
}
