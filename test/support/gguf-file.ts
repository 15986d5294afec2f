import { open } from 'node:fs/promises';
import { dequantize } from '../../src/weights/gguf/dequantize.js';
import { type GgufTensor, type MetadataValue, writeGguf } from '../../src/weights/gguf/gguf-writer.js';
import { quantize } from '../../src/weights/gguf/quantize.js';
import { bytesFromFloats, floatsFrom } from '../../src/weights/half-floats.js';
import type { FloatType } from '../../src/weights/safetensors.js';
import type { StoredTensor } from './tensor-file.js';

/** Writes tensors, header fields and data as they are given. */
export async function writeGgufFile(
  path: string,
  tensors: readonly GgufTensor[],
  metadata: Iterable<readonly [string, MetadataValue]> = [],
): Promise<void> {
  const handle = await open(path, 'w');
  await writeGguf(handle, { metadata: new Map(metadata), tensors }).finally(() => handle.close());
}

/**
 * Quantises the tensors of a network as ComfyUI-GGUF's files have them: matrices and convolutions in Q8_0, those without rows of whole
 * blocks folded, with their shape in the metadata; vectors in F32; what has five dimensions in F16.
 *
 * @param rename names in the file
 * @returns the same numbers in safetensors' types, under the names that were given: F16 for what is quantised
 */
export async function writeQuantized(
  path: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  rename: (name: string) => string,
): Promise<Map<string, StoredTensor>> {
  const same = new Map<string, StoredTensor>();
  const metadata = new Map<string, MetadataValue>([['general.architecture', { kind: 'string', value: 'any' }]]);
  const written = [...tensors].map(([key, { dtype, shape, bytes }]): GgufTensor => {
    const values = floatsFrom(dtype as FloatType, Uint8Array.from(bytes));
    const name = rename(key);
    const plain = shape.length === 1 ? 'F32' : 'F16';
    if (shape.length === 1 || shape.length === 5 || values.length % 32 !== 0) {
      const stored = Buffer.from(bytesFromFloats(plain, values));
      same.set(key, { dtype: plain, shape, bytes: stored });
      return { name, shape, type: plain, read: () => [stored] };
    }
    const stored = quantize('Q8_0', values);
    same.set(key, { dtype: 'F16', shape, bytes: Buffer.from(bytesFromFloats('F16', dequantize('Q8_0', stored))) });
    const isWhole = (shape.at(-1) ?? 0) % 32 === 0;
    if (!isWhole) metadata.set(`comfy.gguf.orig_shape.${name}`, { kind: 'int32s', value: shape });
    return { name, shape: isWhole ? shape : [values.length / 32, 32], type: 'Q8_0', read: () => [stored] };
  });
  await writeGgufFile(path, written, metadata);
  return same;
}
