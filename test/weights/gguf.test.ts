import { open, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readGgufHeader } from '../../src/weights/gguf/gguf-header.js';
import { type GgufFile, type GgufTensor, planGguf, writeGguf } from '../../src/weights/gguf/gguf-writer.js';
import { readSplitGgufHeader } from '../../src/weights/gguf/split-gguf.js';
import { tempFolder } from '../support/temp-folder.js';

const small: GgufFile = {
  metadata: new Map([
    ['general.architecture', { kind: 'string', value: 'qwen2' }],
    ['a.count', { kind: 'uint32', value: 4_294_967_295 }],
    ['a.ratio', { kind: 'float32', value: 0.5 }],
    ['a.flag', { kind: 'bool', value: true }],
    ['a.words', { kind: 'strings', value: ['Ġa', '猫', ''] }],
    ['a.kinds', { kind: 'int32s', value: [1, -3] }],
  ]),
  tensors: [
    { name: 'w', shape: [2, 32], type: 'Q8_0', read: () => [new Uint8Array(34).fill(1), new Uint8Array(34).fill(2)] },
    { name: 'b', shape: [3], type: 'F32', read: () => [new Uint8Array(12).fill(3)] },
  ],
};

async function write(file: GgufFile): Promise<string> {
  const path = join(await tempFolder(), 'model.gguf');
  const handle = await open(path, 'w');
  await writeGguf(handle, file).finally(() => handle.close());
  return path;
}

describe('a split GGUF file', () => {
  /** Parts as llama-gguf-split writes them with --no-tensor-first-split. */
  async function split(change: (part: number) => Record<string, number> = () => ({})): Promise<readonly string[]> {
    const folder = await tempFolder();
    const paths: string[] = [];
    for (const part of [1, 2, 3]) {
      const path = join(folder, `model-0000${part}-of-00003.gguf`);
      const numbers = { 'split.no': part - 1, 'split.count': 3, 'split.tensors.count': 2, ...change(part) };
      const metadata = new Map([
        ...(part === 1 ? small.metadata : []),
        ...Object.entries(numbers).map(([key, value]) => [key, { kind: 'uint32', value }] as const),
      ]);
      const handle = await open(path, 'w');
      await writeGguf(handle, { metadata, tensors: small.tensors.slice(part - 2, part - 1) }).finally(() =>
        handle.close(),
      );
      paths.push(path);
    }
    return paths;
  }

  it('is read whole from any of its parts', async () => {
    const paths = await split();
    const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size));
    for (const path of paths) {
      const header = await readSplitGgufHeader(path);
      expect(header.path).toBe(paths[0]);
      expect([...header.tensors.keys()]).toEqual(['w', 'b']);
      expect(header.metadata.get('general.architecture')).toBe('qwen2');
      expect(header.fileBytes).toBe(sizes.reduce((sum, size) => sum + size));
    }
  });

  it('is refused without a part, with one of another file, or renamed', async () => {
    const paths = await split();
    await rm(paths[1] ?? '');
    await expect(readSplitGgufHeader(paths[2] ?? '')).rejects.toThrow(`${paths[1]} does not exist or cannot be read`);
    const [mixed] = await split((part) => (part === 2 ? { 'split.count': 4 } : {}));
    await expect(readSplitGgufHeader(mixed ?? '')).rejects.toThrow('has 3 parts by its name, part 2 says 4');
    const [fewer] = await split(() => ({ 'split.tensors.count': 3 }));
    await expect(readSplitGgufHeader(fewer ?? '')).rejects.toThrow('has 2 tensors in 3 parts, must have 3');
    const [first = ''] = await split();
    await rename(first, join(dirname(first), 'model.gguf'));
    await expect(readSplitGgufHeader(join(dirname(first), 'model.gguf'))).rejects.toThrow(
      'is one of 3 parts; name them as llama.cpp does, NAME-00001-of-00003.gguf',
    );
  });
});

describe('writeGguf', () => {
  it('writes a file that the reader reads back', async () => {
    const path = await write(small);
    const { metadata, tensors, fileBytes } = await readGgufHeader(path);
    expect(fileBytes).toBe(planGguf(small).bytes);
    expect(Object.fromEntries(metadata)).toEqual({
      'general.architecture': 'qwen2',
      'a.count': 4_294_967_295,
      'a.ratio': 0.5,
      'a.flag': true,
      'a.words': ['Ġa', '猫', ''],
      'a.kinds': [1, -3],
    });
    const start = planGguf(small).header.length;
    expect([...tensors.values()]).toEqual([
      { name: 'w', type: 'Q8_0', shape: [2, 32], offset: start, length: 68 },
      { name: 'b', type: 'F32', shape: [3], offset: start + 96, length: 12 },
    ]);
    const bytes = await readFile(path);
    expect(start % 32).toBe(0);
    expect([...bytes.subarray(start + 34, start + 36)]).toEqual([2, 2]);
    expect([...bytes.subarray(start + 68, start + 96)]).toEqual(new Array(28).fill(0));
  });

  it('rejects a tensor whose bytes do not fit its shape', async () => {
    const short: GgufTensor = { name: 'w', shape: [2], type: 'F32', read: () => [new Uint8Array(4)] };
    await expect(write({ metadata: new Map(), tensors: [short] })).rejects.toThrow('w gave 4 bytes, it has 8');
  });

  it('reads a tensor only after the one before it is written, and stops at an abort', async () => {
    const controller = new AbortController();
    const handle = await open(join(await tempFolder(), 'x'), 'w');
    const read: string[] = [];
    const tensor = (name: string): GgufTensor => ({
      name,
      shape: [1],
      type: 'F32',
      read: () => {
        read.push(name);
        if (name === 'b') controller.abort(new Error('enough'));
        return [new Uint8Array(4)];
      },
    });
    const file = { metadata: new Map(), tensors: ['a', 'b', 'c'].map(tensor) };
    await expect(writeGguf(handle, file, { signal: controller.signal }).finally(() => handle.close())).rejects.toThrow(
      'enough',
    );
    expect(read).toEqual(['a', 'b']);
  });
});

const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value: number | bigint) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
const start = (tensors: number | bigint, entries: number | bigint, version = 3) =>
  Buffer.concat([Buffer.from('GGUF'), u32(version), u64(tensors), u64(entries)]);
const tensorEntry = (name: string, dims: (number | bigint)[], type: number, offset: number) =>
  Buffer.concat([text(name), u32(dims.length), ...dims.map(u64), u32(type), u64(offset)]);

describe('readGgufHeader refuses', () => {
  const invalid = 'CHECKPOINT_INVALID';
  it.each([
    ['nothing', Buffer.alloc(0), invalid, 'does not begin with "GGUF"; it is not a GGUF file'],
    ['another magic', Buffer.from('PK\x03\x04 and more'), invalid, 'does not begin with "GGUF"; it is not a GGUF file'],
    ['version 1', start(0, 0, 1), 'MODEL_UNSUPPORTED', 'is a GGUF file of version 1, 2 and 3 are known; convert'],
    ['version 4', start(0, 0, 4), 'MODEL_UNSUPPORTED', 'is a GGUF file of version 4, 2 and 3 are known; convert'],
    ['big-endian', start(0, 0, 0x03000000), 'MODEL_UNSUPPORTED', 'is a big-endian GGUF file; convert'],
    ['an end after the version', start(0, 0).subarray(0, 8), invalid, 'ends inside its header (at byte 8); download'],
    ['too many tensors', start(100_001, 0), invalid, 'claims 100001 tensors, the limit is 100000'],
    ['too many entries', start(0, 10_001), invalid, 'claims 10001 metadata entries, the limit is 10000'],
    ['a count beyond 2^53', start(2n ** 63n, 0), invalid, 'has a count of 9223372036854775808 in its header'],
    [
      'an endless key',
      Buffer.concat([start(0, 1), u64(2 ** 40)]),
      invalid,
      'has a string of 1099511627776 bytes in its header',
    ],
    [
      'a key that ends early',
      Buffer.concat([start(0, 1), u64(100), Buffer.from('abc')]),
      invalid,
      'ends inside its header (at byte 35)',
    ],
    [
      'an endless array',
      Buffer.concat([start(0, 1), text('k'), u32(9), u32(4), u64(3_000_001)]),
      invalid,
      'claims 3000001 elements in metadata "k", the limit of a file is 3000000',
    ],
    [
      'an array of arrays',
      Buffer.concat([start(0, 1), text('k'), u32(9), u32(9), u64(1), u64(0)]),
      invalid,
      'gives metadata "k" the type 9, which does not exist',
    ],
    [
      'a type that is none',
      Buffer.concat([start(0, 1), text('k'), u32(77)]),
      invalid,
      'gives metadata "k" the type 77',
    ],
    [
      'a key twice',
      Buffer.concat([start(0, 2), text('k'), u32(4), u32(1), text('k'), u32(4), u32(1)]),
      invalid,
      'has metadata "k" twice',
    ],
    [
      'an alignment of zero',
      Buffer.concat([start(0, 1), text('general.alignment'), u32(4), u32(0)]),
      invalid,
      'has general.alignment 0, which must be a power of 2',
    ],
    [
      'six dimensions',
      Buffer.concat([start(1, 0), tensorEntry('t', [1, 1, 1, 1, 1, 1], 0, 0)]),
      invalid,
      '6 dimensions, the limit is 5',
    ],
    [
      'half a block',
      Buffer.concat([start(1, 0), tensorEntry('t', [33], 8, 0)]),
      invalid,
      'the shape [33], which Q8_0 cannot have',
    ],
    [
      'a product that overflows',
      Buffer.concat([start(1, 0), tensorEntry('t', [2 ** 40, 2 ** 40], 0, 0)]),
      invalid,
      'which F32 cannot have',
    ],
    [
      'an unknown tensor type',
      Buffer.concat([start(1, 0), tensorEntry('t', [32], 999, 0)]),
      'MODEL_UNSUPPORTED',
      'stores tensor "t" as type 999, which is not known',
    ],
    [
      'a crooked offset',
      Buffer.concat([start(1, 0), tensorEntry('t', [1], 0, 4)]),
      invalid,
      'at an offset that is no multiple of 32',
    ],
    [
      'a tensor beyond the end',
      Buffer.concat([start(1, 0), tensorEntry('a\n"b', [1024], 0, 0)]),
      invalid,
      'is truncated: tensor "a\\n\\"b" ends at byte 4160, the file has 60; download it again',
    ],
    [
      'a tensor twice',
      Buffer.concat([start(2, 0), tensorEntry('t', [1], 0, 0), tensorEntry('t', [1], 0, 0), Buffer.alloc(64)]),
      invalid,
      'has tensor "t" twice',
    ],
  ])('%s', async (_, bytes, reason, message) => {
    const path = join(await tempFolder(), 'model.gguf');
    await writeFile(path, bytes);
    const error: unknown = await readGgufHeader(path).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ reason });
    expect(String(error)).toContain(path);
    expect(String(error)).toContain(message);
  });

  it('a file cut anywhere, without reading past it', async () => {
    const path = await write(small);
    const { bytes } = planGguf(small);
    for (let length = 0; length < bytes - 20; length += 7) {
      const cut = `${path}.${length}`;
      await writeFile(cut, (await readFile(path)).subarray(0, length));
      await expect(readGgufHeader(cut), `${length} bytes`).rejects.toMatchObject({ reason: invalid });
    }
    await truncate(path, 3);
    await expect(readGgufHeader(path)).rejects.toThrow('it is not a GGUF file');
    await expect(readGgufHeader(`${path}.none`)).rejects.toThrow('model.gguf.none does not exist or cannot be read');
    await expect(readGgufHeader(await tempFolder())).rejects.toThrow('is not a file; give a .gguf file');
  });
});
