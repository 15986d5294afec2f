import { elementCount } from '../std/element-count.js';

/**
 * Weights without a file: every element follows from its tensor's name, so any language can make the same model from a
 * manifest of names and shapes. The rule (docs/reference/hash-weights.md): FNV-1a of the name, a golden-ratio counter through
 * murmur3's finaliser, 24 bits of it as a number in [-1, 1), scaled by what kind of tensor it is.
 */

/** 32-bit FNV-1a of the UTF-8 bytes. http://www.isthe.com/chongo/tech/comp/fnv/ */
export function fnv1a32(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

/** Element `i` of the tensor, in [-1, 1), before scaling. Finaliser: MurmurHash3's fmix32. */
export function hashUnit(nameHash: number, i: number): number {
  let x = (nameHash + Math.imul(i, 0x9e3779b9)) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  x = (x ^ (x >>> 16)) >>> 0;
  return (x >>> 8) / 2 ** 23 - 1;
}

/** All elements, rounded to float32. */
export function hashTensor(name: string, shape: readonly number[]): Float32Array {
  const hash = fnv1a32(name);
  const length = elementCount(shape);
  const fanIn = elementCount(shape.slice(1));
  const isScale = name.endsWith('gamma') || (shape.length === 1 && name.endsWith('weight'));
  const [offset, spread] = isScale ? [1, 0.1] : shape.length <= 1 ? [0, 0.05] : [0, Math.sqrt(3 / fanIn)];
  const values = new Float32Array(length);
  for (let i = 0; i < length; i += 1) values[i] = offset + spread * hashUnit(hash, i);
  return values;
}
