/** 16-bit floats of both kinds: rounded to nearest even on the way down, exact on the way up. */
import type { FloatType } from './safetensors.js';

/** IEEE 754 binary32 bits to bfloat16: NaN stays NaN, made quiet. */
export function bfloat16Bits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** IEEE 754 binary32 bits to binary16: beyond 65504 + 16 is infinity, NaN is one quiet NaN of either sign. */
export function float16Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65520 is half-way to what would be the next binary16: it and all above round up.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  const exponent = (magnitude >>> 23) - 112;
  const mantissa = magnitude & 0x7fffff;
  if (exponent > 0) return sign | roundShift((exponent << 23) | mantissa, 13);
  // Below 2^-14 the result is subnormal: the implicit one moves into the mantissa.
  return exponent < -10 ? sign : sign | roundShift(mantissa | 0x800000, 14 - exponent);
}

/** The number that binary16 bits stand for. */
export function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

let halves: Float32Array | undefined;

/** The value of each binary16 bit pattern, [65536], computed when first needed. */
export function float16Table(): Float32Array {
  halves ??= Float32Array.from({ length: 65_536 }, (_, i) => float16Value(i));
  return halves;
}

/** Stored elements as float32, which holds every one of them exactly. `bytes` must begin where an element may. */
export function floatsFrom(type: FloatType, bytes: Uint8Array): Float32Array {
  if (type === 'F32') return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const stored = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const values = new Float32Array(stored.length);
  if (type === 'BF16') {
    const bits = new Uint32Array(values.buffer);
    for (let i = 0; i < stored.length; i += 1) bits[i] = (stored[i] ?? 0) << 16;
    return values;
  }
  const table = float16Table();
  for (let i = 0; i < stored.length; i += 1) values[i] = table[stored[i] ?? 0] ?? 0;
  return values;
}

/** Elements as a file stores them, little-endian, rounded to nearest even. */
export function bytesFromFloats(type: FloatType, values: Float32Array): Uint8Array {
  if (type === 'F32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const round = type === 'F16' ? float16Bits : bfloat16Bits;
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const stored = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) stored[i] = round(bits[i] ?? 0);
  return new Uint8Array(stored.buffer);
}

// value / 2^shift, to nearest even; value is positive and below 2^31.
function roundShift(value: number, shift: number): number {
  const kept = value >>> shift;
  const rest = value & (2 ** shift - 1);
  const half = 2 ** (shift - 1);
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept;
}
