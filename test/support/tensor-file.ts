import { readFile, writeFile } from 'node:fs/promises';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { safetensorsBytes } from './safetensors-bytes.js';

export interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Buffer;
}

/** Tensors by name. */
export type Tensors = Map<string, StoredTensor>;

/** All tensors of a small safetensors file, to be changed and written again. */
export async function readTensorFile(path: string): Promise<Tensors> {
  const { tensors } = await readSafetensors(path);
  const bytes = await readFile(path);
  return new Map(
    [...tensors].map(([name, { dtype, shape, offset, length }]) => [
      name,
      { dtype, shape, bytes: bytes.subarray(offset, offset + length) },
    ]),
  );
}

export async function writeTensorFile(
  path: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  let end = 0;
  const entries = [...tensors].map(([name, { dtype, shape, bytes }]) => {
    end += bytes.length;
    return [name, { dtype, shape, data_offsets: [end - bytes.length, end] }] as const;
  });
  const data = Buffer.concat([...tensors.values()].map(({ bytes }) => bytes));
  const header = Object.fromEntries(entries);
  const isBare = Object.keys(metadata).length === 0;
  await writeFile(path, safetensorsBytes(isBare ? header : { __metadata__: metadata, ...header }, data));
}
