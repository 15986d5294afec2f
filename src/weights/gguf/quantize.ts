import { bfloat16Bits, float16Bits } from '../half-floats.js';
import type { WrittenType } from './gguf-types.js';

/** Elements of a Q8_0 block: a binary16 scale, then as many signed bytes. */
const BLOCK = 32;
const BLOCK_BYTES = 2 + BLOCK;

/**
 * Elements as a GGUF file stores them, little-endian; for Q8_0 whole blocks of 32.
 * @throws RangeError, the end of a sentence that begins with the tensor's name, where the type cannot hold them
 */
export function quantize(type: WrittenType, values: Float32Array): Uint8Array {
  switch (type) {
    case 'F32':
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case 'F16':
      return quantizeF16(values);
    case 'BF16':
      return quantizeBf16(values);
    case 'Q8_0':
      return quantizeQ8(values);
  }
}

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

function quantizeF16(values: Float32Array): Uint8Array {
  const bits = bitsOf(values);
  const stored = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) {
    const half = float16Bits(bits[i] ?? 0);
    if ((half & 0x7c00) === 0x7c00)
      throw new RangeError(`holds ${values[i]}, which F16 cannot; convert to another type`);
    stored[i] = half;
  }
  return new Uint8Array(stored.buffer);
}

function quantizeBf16(values: Float32Array): Uint8Array {
  const bits = bitsOf(values);
  const stored = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) stored[i] = bfloat16Bits(bits[i] ?? 0);
  return new Uint8Array(stored.buffer);
}

/**
 * Q8_0 as ggml's reference makes it, byte for byte: every step rounds to float32, the elements are multiplied by the
 * reciprocal of the unrounded scale, and halves go away from zero.
 * https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/src/ggml-quants.c#L276-L299
 */
function quantizeQ8(values: Float32Array): Uint8Array {
  if (values.length % BLOCK !== 0)
    throw new RangeError(`has ${values.length} elements, Q8_0 takes multiples of ${BLOCK}`);
  const stored = new Uint8Array((values.length / BLOCK) * BLOCK_BYTES);
  const bits = bitsOf(values);
  const scale = new Float32Array(1);
  const scaleBits = bitsOf(scale);
  let at = 0;
  for (let start = 0; start < values.length; start += BLOCK) {
    // Magnitudes compare as their bits do; infinity and every NaN are beyond all others.
    let largestBits = 0;
    for (let i = start; i < start + BLOCK; i += 1) {
      const magnitude = (bits[i] ?? 0) & 0x7fffffff;
      if (magnitude > largestBits) largestBits = magnitude;
    }
    scaleBits[0] = largestBits;
    const largest = scale[0] ?? 0;
    if (largestBits >= 0x7f800000) throw new RangeError(`holds ${largest}, which is no weight`);
    const d = Math.fround(largest / 127);
    scale[0] = d;
    const half = float16Bits(scaleBits[0] ?? 0);
    if (half === 0x7c00) throw new RangeError(`holds ${largest}, which Q8_0 cannot; convert to another type`);
    stored[at] = half & 0xff;
    stored[at + 1] = half >>> 8;
    at += 2;
    // Rounding a double quotient or product of two float32 to float32 gives what float32 arithmetic does.
    const reciprocal = d === 0 ? 0 : Math.fround(1 / d);
    for (let i = start; i < start + BLOCK; i += 1) {
      const x = Math.fround((values[i] ?? 0) * reciprocal);
      // Exact in double. Where 1/d overflows, d is stored as zero and so is what infinity and NaN become here.
      stored[at] = x < 0 ? x - 0.5 : x + 0.5;
      at += 1;
    }
  }
  return stored;
}
