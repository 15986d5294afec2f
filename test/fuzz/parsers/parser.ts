/** What parsers of foreign bytes share. */
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { safetensorsBytes } from '../../support/safetensors-bytes.js';

export const root = (path: string) =>
  fileURLToPath(new URL(`../../../${import.meta.url.includes('/dist/') ? '../' : ''}${path}`, import.meta.url));

export interface FuzzedParser {
  readonly name: string;
  seeds(folder: string): Promise<readonly Buffer[]>;
  /** Reads bytes, from a file in the folder where the reader takes one. @throws what the reader throws, and WrongAcceptance */
  parse(bytes: Buffer, folder: string): Promise<unknown>;
}

/** What a reader took that it must refuse. */
export class WrongAcceptance extends Error {}

export function hold(condition: boolean, what: string): void {
  if (!condition) throw new WrongAcceptance(what);
}

interface Placed {
  readonly offset: number;
  readonly length: number;
}

export async function holdPlaces(path: string, tensors: Iterable<Placed>): Promise<void> {
  const { size } = await stat(path);
  for (const { offset, length } of tensors) {
    hold(Number.isSafeInteger(offset) && Number.isSafeInteger(length), 'a tensor whose place is no number');
    hold(offset >= 0 && length >= 0 && offset + length <= size, 'a tensor outside of its file');
  }
}

export async function fileOf(bytes: Buffer, folder: string, name: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

export const f32 = (shape: readonly number[], begin: number, end: number) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
});

/** A safetensors file of zeros. */
export function zeros(shapes: readonly (readonly [name: string, shape: readonly number[]])[]): Buffer {
  let end = 0;
  const header = shapes.map(([name, shape]) => {
    const begin = end;
    end += 4 * shape.reduce((product, dim) => product * dim, 1);
    return [name, f32(shape, begin, end)] as const;
  });
  return safetensorsBytes(Object.fromEntries(header), new Uint8Array(end));
}
