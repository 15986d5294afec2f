import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { safetensorsBytes } from '../support/safetensors-bytes.js';
import { tempFolder } from '../support/temp-folder.js';

const f32 = (shape: number[], begin: number, end: number) => ({ dtype: 'F32', shape, data_offsets: [begin, end] });

async function fileOf(bytes: Uint8Array): Promise<string> {
  const path = join(await tempFolder(), 'model.safetensors');
  await writeFile(path, bytes);
  return path;
}

describe('readSafetensors', () => {
  it('gives absolute byte ranges, whatever the order of the header', async () => {
    const header = { __metadata__: { format: 'pt' }, b: f32([2], 4, 12), a: f32([], 0, 4), empty: f32([0, 3], 12, 12) };
    const bytes = safetensorsBytes(header, new Uint8Array(12));
    const { tensors, metadata } = await readSafetensors(await fileOf(bytes));
    const start = bytes.length - 12;
    expect(metadata).toEqual({ format: 'pt' });
    expect([...tensors.keys()]).toEqual(['a', 'b', 'empty']);
    expect(tensors.get('b')).toMatchObject({ dtype: 'F32', shape: [2], offset: start + 4, length: 8 });
  });

  it.each([
    ['GGUF\x03\0\0\0', 'is a GGUF file; give the .safetensors file of this model'],
    ['PK\x03\x04\0\0\0\0', 'is a PyTorch file (a zip archive); give the .safetensors file of this model'],
  ])('names another format: %j', async (start, message) => {
    const path = await fileOf(Buffer.from(start, 'latin1'));
    await expect(readSafetensors(path)).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: `${path} ${message}`,
    });
  });

  it('reads metadata that is null', async () => {
    const path = await fileOf(safetensorsBytes({ __metadata__: null, a: f32([1], 0, 4) }, new Uint8Array(4)));
    expect((await readSafetensors(path)).metadata).toEqual({});
  });

  const hostile: readonly [string, Buffer, RegExp][] = [
    ['an empty file', Buffer.alloc(0), /is 0 bytes long, too short/],
    [
      'a header of 2 GB',
      Buffer.from('0000008000000000', 'hex'),
      /claims a header of 2147483648 bytes, the limit is 32000000/,
    ],
    ['a header that ends early', safetensorsBytes({ a: f32([1], 0, 4) }).subarray(0, 20), /ends inside its header/],
    ['a header that is not JSON', safetensorsBytes('{"a":'), /header that is not JSON/],
    ['a header that is a list', safetensorsBytes([]), /not a JSON object/],
    [
      'a type that is none',
      safetensorsBytes({ a: { ...f32([1], 0, 4), dtype: 'F31' } }, new Uint8Array(4)),
      /tensor "a" the type "F31"/,
    ],
    [
      'a type of Object itself',
      safetensorsBytes({ a: { ...f32([1], 0, 4), dtype: 'constructor' } }, new Uint8Array(4)),
      /the type "constructor"/,
    ],
    ['a negative dimension', safetensorsBytes({ a: f32([-1], 0, 4) }, new Uint8Array(4)), /the shape \[-1\]/],
    [
      'a product that overflows',
      safetensorsBytes({ a: f32([2 ** 40, 2 ** 40], 0, 4) }, new Uint8Array(4)),
      /holds 4 bytes for tensor "a"/,
    ],
    ['offsets that are no range', safetensorsBytes({ a: f32([1], 4, 0) }, new Uint8Array(4)), /the offsets \[4,0\]/],
    [
      'a length that is not the shape',
      safetensorsBytes({ a: f32([2], 0, 4) }, new Uint8Array(4)),
      /holds 4 bytes for tensor "a", but F32 \[2\] takes 8/,
    ],
    [
      'overlapping tensors',
      safetensorsBytes({ a: f32([2], 0, 8), b: f32([2], 4, 12) }, new Uint8Array(12)),
      /overlapping tensors: "b"/,
    ],
    [
      'a hole',
      safetensorsBytes({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, new Uint8Array(12)),
      /a hole of 4 bytes before tensor "b"/,
    ],
    [
      'offsets past the end',
      safetensorsBytes({ a: f32([2], 0, 8) }, new Uint8Array(4)),
      /is truncated: tensor "a" ends at byte/,
    ],
    [
      'bytes after the last tensor',
      safetensorsBytes({ a: f32([1], 0, 4) }, new Uint8Array(9)),
      /has 5 bytes after its last tensor/,
    ],
  ];
  it.each(hostile)('refuses %s', async (_, bytes, message) => {
    await expect(readSafetensors(await fileOf(bytes))).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message),
    });
  });

  it('refuses a file that was cut off, by the tensor that is gone', async () => {
    const path = await fileOf(safetensorsBytes({ a: f32([1], 0, 4), b: f32([4], 4, 20) }, new Uint8Array(20)));
    await truncate(path, 120);
    await expect(readSafetensors(path)).rejects.toThrow(/is truncated: tensor "b"/);
  });

  it('names a path that does not exist', async () => {
    await expect(readSafetensors('/nowhere/x.safetensors')).rejects.toThrow('/nowhere/x.safetensors does not exist');
  });
});
