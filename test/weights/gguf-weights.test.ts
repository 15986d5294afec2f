import { mkdir, readdir, readFile, rename, rm, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { quantizedTypes } from '../../src/weights/gguf/dequantize.js';
import { readGgufWeights } from '../../src/weights/gguf/gguf-weights.js';
import type { GgufTensor } from '../../src/weights/gguf/gguf-writer.js';
import { bytesFromFloats } from '../../src/weights/half-floats.js';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { Expected } from '../conformance/golden-folder.js';
import { writeGgufFile } from '../support/gguf-file.js';
import { tempFolder } from '../support/temp-folder.js';

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/gguf/${name}`, import.meta.url));

/** A copy of the fixture, or other bytes, and a cache of its own, which is not made yet. */
async function source(bytes?: Buffer) {
  const folder = await tempFolder();
  const path = join(folder, 'types.gguf');
  await writeFile(path, bytes ?? (await readFile(fixture('types.gguf'))));
  return { path, cacheFolder: join(folder, 'a', 'cache') };
}

const q8 = (name: string, blocks: number): GgufTensor => ({
  name,
  shape: [blocks, 32],
  type: 'Q8_0',
  // Scales of one, elements of one.
  read: () => Array.from({ length: blocks }, () => new Uint8Array(34).fill(1).fill(0x3c, 1, 2).fill(0, 0, 1)),
});

describe('readGgufWeights', () => {
  it('gives plain tensors where they lie and the others rounded to float16, in the shapes that they had', async () => {
    const { path, cacheFolder } = await source();
    const { tensors, prepare } = await readGgufWeights(path, { cacheFolder });
    await expect(stat(cacheFolder)).rejects.toThrow('ENOENT');
    await prepare?.();
    const expected = await Expected.read(fixture('expected.safetensors'));
    expect([...tensors.keys()].sort()).toEqual([...quantizedTypes, 'BF16', 'F16', 'F32', 'folded'].sort());
    for (const [name, { file, dtype, shape, offset, length }] of tensors) {
      const isPlain = ['F32', 'F16', 'BF16'].includes(name);
      expect(file === path).toBe(isPlain);
      expect(dtype).toBe(isPlain ? name : 'F16');
      expect(shape).toEqual(expected.shape(name));
      const stored = (await readFile(file)).subarray(offset, offset + length);
      const wanted = bytesFromFloats(isPlain ? (name as 'F32') : 'F16', Float32Array.from(expected.floats(name)));
      expect(stored.equals(wanted), name).toBe(true);
    }
    const [cached = ''] = await readdir(cacheFolder);
    expect(cached).toMatch(/^types-[0-9a-f]{32}\.safetensors$/);
    const { tensors: written } = await readSafetensors(join(cacheFolder, cached));
    expect(written.size).toBe(quantizedTypes.length + 1);
    for (const [name, record] of written) expect(tensors.get(name)).toMatchObject(record);
  });

  it('converts once, again where the file is gone or not whole, and anew for a source of another time', async () => {
    const { path, cacheFolder } = await source();
    const prepared = async () => {
      await (await readGgufWeights(path, { cacheFolder })).prepare?.();
      return (await readdir(cacheFolder)).map((name) => join(cacheFolder, name));
    };
    const [first = ''] = await prepared();
    await utimes(first, 1, 1);
    const { size } = await stat(first);
    expect(await prepared()).toEqual([first]);
    expect((await stat(first)).mtimeMs).toBe(1000);
    await writeFile(first, 'short');
    expect(await prepared()).toEqual([first]);
    expect((await stat(first)).size).toBe(size);
    await rm(cacheFolder, { recursive: true });
    expect(await prepared()).toEqual([first]);
    await utimes(path, 5, 5);
    expect(await prepared()).toHaveLength(2);
  });

  it('names the real folder behind a link, as the runtime does', async () => {
    const { path, cacheFolder } = await source();
    const folder = await tempFolder();
    await mkdir(cacheFolder, { recursive: true });
    await symlink(cacheFolder, join(folder, 'link'));
    const { tensors } = await readGgufWeights(path, { cacheFolder: join(folder, 'link', 'below') });
    expect(tensors.get('Q8_0')?.file.startsWith(`${join(cacheFolder, 'below')}/`)).toBe(true);
  });

  it('converts a file of the longest name', async () => {
    const { path, cacheFolder } = await source();
    const long = join(dirname(path), `${'雪'.repeat(83)}.gguf`);
    await rename(path, long);
    await (await readGgufWeights(long, { cacheFolder })).prepare?.();
    expect(await readdir(cacheFolder)).toHaveLength(1);
  });

  it('converts nothing of a file of plain types', async () => {
    const { path } = await source();
    await writeGgufFile(path, [{ name: 'a', shape: [2], type: 'F16', read: () => [new Uint8Array(4)] }]);
    expect((await readGgufWeights(path)).prepare).toBeUndefined();
  });

  it('leaves nothing of a source that is damaged or changes', async () => {
    const { path, cacheFolder } = await source();
    const infinite: GgufTensor = { ...q8('w', 1), read: () => [new Uint8Array(34).fill(1).fill(0x7c, 1, 2)] };
    await writeGgufFile(path, [infinite]);
    const damaged = await readGgufWeights(path, { cacheFolder });
    await expect(damaged.prepare?.()).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: `${path}: tensor "w" holds a number that is not finite in float16; it is damaged, get it again`,
    });
    await writeGgufFile(path, [q8('w', 4)]);
    const changed = await readGgufWeights(path, { cacheFolder });
    await utimes(path, 7, 7);
    await expect(changed.prepare?.()).rejects.toThrow('changed while it was converted; load it again');
    expect(await readdir(cacheFolder)).toEqual([]);
  });

  it('says in one sentence that there is no room, before it writes', async () => {
    const { path, cacheFolder } = await source();
    // A file with a hole: no weights, but the size of them.
    const blocks = 2 ** 41 / 32;
    await writeGgufFile(path, [q8('w', 1)]);
    const bytes = await readFile(path);
    const dims = bytes.indexOf(Buffer.from('w')) + 5;
    bytes.writeBigUInt64LE(BigInt(blocks), dims + 8);
    await writeFile(path, bytes);
    await truncate(path, bytes.length + blocks * 34);
    const { prepare } = await readGgufWeights(path, { cacheFolder });
    await expect(prepare?.()).rejects.toMatchObject({
      reason: 'OUT_OF_MEMORY',
      message: expect.stringMatching(
        new RegExp(
          `^${cacheFolder} has no room for 4398\\.05 GB \\([\\d.]+ GB free\\); free some, or name another folder with WEIGHTS_CACHE$`,
        ),
      ),
    });
    expect(await readdir(cacheFolder)).toEqual([]);
  });

  it('refuses types without arithmetic here, overlaps, shapes that do not fit and parts of a split file', async () => {
    const { path } = await source();
    const written = async (change: (bytes: Buffer) => void, ...more: Parameters<typeof writeGgufFile>[2][]) => {
      await writeGgufFile(path, [q8('first', 4), q8('w', 4)], ...more);
      const bytes = await readFile(path);
      change(bytes);
      await writeFile(path, bytes);
      return readGgufWeights(path).then(
        () => 'taken',
        ({ reason, message }) => `${reason}: ${message}`,
      );
    };
    const entry = (bytes: Buffer) => bytes.indexOf(Buffer.from('\x01\0\0\0\0\0\0\0w')) + 9;
    expect(await written(() => undefined)).toBe('taken');
    // Of the size of Q4_0.
    expect(await written((bytes) => bytes.writeUInt32LE(20, entry(bytes) + 20))).toBe(
      `MODEL_UNSUPPORTED: ${path} stores tensor "w" as IQ4_NL; get a file of F32, F16, BF16, ${quantizedTypes.join(', ')}`,
    );
    expect(await written((bytes) => bytes.writeBigUInt64LE(0n, entry(bytes) + 24))).toMatch(
      /^CHECKPOINT_INVALID: .* has overlapping tensors: "(w|first)" starts at byte (\d+), before \d+$/,
    );
    const shape = (value: readonly number[]) => [['comfy.gguf.orig_shape.w', { kind: 'int32s', value }]] as const;
    expect(await written(() => undefined, shape([2, 2, 4, 8]))).toBe('taken');
    for (const wrong of [[2, 2, 4, 9], [-8, -16], [], Array.from({ length: 17 }, (_, i) => (i === 0 ? 128 : 1))]) {
      expect(await written(() => undefined, shape(wrong))).toMatch(
        /^CHECKPOINT_INVALID: .* gives tensor "w" the original shape .*, which its 128 elements do not have; it is corrupt$/,
      );
    }
    expect(await written(() => undefined, [['split.count', { kind: 'uint32', value: 3 }]])).toBe(
      `MODEL_UNSUPPORTED: ${path} is one of 3 parts; merge them with llama-gguf-split --merge`,
    );
  });

  it('refuses a file that ends anywhere before its end', async () => {
    const { path } = await source();
    const bytes = await readFile(path);
    for (let end = 0; end < bytes.length - 31; end += 97) {
      await writeFile(path, bytes.subarray(0, end));
      await expect(readGgufWeights(path), `${end}`).rejects.toMatchObject({ reason: 'CHECKPOINT_INVALID' });
    }
  });
});
