import { open, rename, stat } from 'node:fs/promises';
import { InferenceError } from '../errors.js';
import { elementCount } from '../std/element-count.js';
import { bytesFromFloats } from '../weights/half-floats.js';
import { type FloatType, floatBytes } from '../weights/safetensors.js';
import { hashTensor } from './hash-weights.js';

export interface HashFile {
  readonly dtype: FloatType;
  /** Comes before every tensor's name in the hash, not in the file. */
  readonly hashPrefix: string;
  readonly tensors: readonly (readonly [name: string, shape: readonly number[]])[];
  /** The file has its header and its size, but no weights: a hole of zeros that takes no room. Default false. */
  readonly isHollow?: boolean;
}

/**
 * Writes a safetensors file of hash weights, a tensor at a time, and puts it in place when it is whole.
 * @throws InferenceError INVALID_REQUEST if there is a folder of that name
 */
export async function writeHashSafetensors(
  path: string,
  { dtype, hashPrefix, tensors, isHollow = false }: HashFile,
): Promise<void> {
  if ((await stat(path).catch(() => undefined))?.isDirectory())
    throw new InferenceError('INVALID_REQUEST', `${path} is a folder; name a file that ends in .safetensors`);
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, shape] of tensors) {
    const begin = end;
    end += elementCount(shape) * floatBytes[dtype];
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const part = `${path}.part`;
  const file = await open(part, 'w');
  try {
    await file.write(Buffer.concat([length, json]));
    if (isHollow) await file.truncate(length.length + json.length + end);
    else
      for (const [name, shape] of tensors)
        await file.write(bytesFromFloats(dtype, hashTensor(hashPrefix + name, shape)));
  } finally {
    await file.close();
  }
  await rename(part, path);
}
