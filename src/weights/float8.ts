/** 8-bit floats of checkpoints: E4M3 without infinities, and E5M2, as Micikevicius et al., arXiv:2209.05433, define them. */

export const float8Types = ['F8_E4M3', 'F8_E5M2'] as const;
export type Float8Type = (typeof float8Types)[number];

/** The value of each byte, which float32 and binary16 hold exactly. */
export function float8Table(type: Float8Type): Float32Array {
  return Float32Array.from({ length: 256 }, (_, byte) => float8Value(type, byte));
}

/** False for a NaN and for an infinity. */
export function isFiniteFloat8(type: Float8Type, byte: number): boolean {
  return type === 'F8_E4M3' ? (byte & 0x7f) !== 0x7f : (byte & 0x7c) !== 0x7c;
}

function float8Value(type: Float8Type, byte: number): number {
  const [fractionBits, bias] = type === 'F8_E4M3' ? [3, 7] : [2, 15];
  const sign = byte & 0x80 ? -1 : 1;
  const exponent = (byte & 0x7f) >>> fractionBits;
  const fraction = (byte & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  if (!isFiniteFloat8(type, byte)) {
    return type === 'F8_E5M2' && fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  }
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}
