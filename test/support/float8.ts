import { type Float8Type, float8Table } from '../../src/weights/float8.js';
import { floatsFrom } from '../../src/weights/half-floats.js';
import { assertFloatType } from './float-type.js';
import { f32 } from './merged-lora.js';
import type { StoredTensor, Tensors } from './tensor-file.js';

/** The nearest 8-bit float of each number of a tensor, and the same widened to float32. */
export function inFloat8(
  type: Float8Type,
  { dtype, shape, bytes }: StoredTensor,
): readonly [StoredTensor, StoredTensor] {
  const table = float8Table(type);
  const finite = [...table.keys()]
    .filter((byte) => Number.isFinite(table[byte]))
    .sort((a, b) => (table[a] ?? 0) - (table[b] ?? 0));
  const values = floatsFrom(assertFloatType(dtype), Uint8Array.from(bytes));
  const stored = Uint8Array.from(values, (value) => {
    let [low, high] = [0, finite.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((table[finite[middle] ?? 0] ?? 0) <= value) low = middle;
      else high = middle;
    }
    return finite[low] ?? 0;
  });
  const widened = Float32Array.from(stored, (byte) => table[byte] ?? 0);
  return [{ dtype: type, shape, bytes: Buffer.from(stored) }, f32(shape, widened)];
}

/** Both forms of all matrices and kernels of a file; the other tensors stay as they are. */
export function allInFloat8(type: Float8Type, tensors: Tensors): readonly [Tensors, Tensors] {
  const [stored, widened]: [Tensors, Tensors] = [new Map(tensors), new Map(tensors)];
  for (const [key, tensor] of tensors) {
    if (tensor.shape.length < 2) continue;
    const [small, wide] = inFloat8(type, tensor);
    stored.set(key, small);
    widened.set(key, wide);
  }
  return [stored, widened];
}
