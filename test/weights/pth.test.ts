import { existsSync } from 'node:fs';
import { readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { bytesFromFloats } from '../../src/weights/half-floats.js';
import { readPth } from '../../src/weights/pth/pth.js';
import { assertFloatType } from '../support/float-type.js';
import {
  dict,
  int,
  named,
  orderedDict,
  pickle,
  pthBytes,
  tensor,
  text,
  tuple,
  zipBytes,
} from '../support/pth-bytes.js';
import { tempFolder } from '../support/temp-folder.js';

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const one = pickle(dict({ a: tensor({ elements: 2, shape: [2] }) }));

async function fileOf(bytes: Uint8Array): Promise<string> {
  const path = join(await tempFolder(), 'model.pth');
  await writeFile(path, bytes);
  return path;
}

/** The elements of a float32 tensor, read where the record says. */
async function valuesOf(bytes: Uint8Array, name: string): Promise<number[]> {
  const { file, tensors } = await readPth(await fileOf(bytes));
  const record = tensors.get(name);
  if (record === undefined) throw new Error(`no ${name}`);
  const content = await readFile(file);
  return [...new Float32Array(Uint8Array.from(content.subarray(record.offset, record.offset + record.length)).buffer)];
}

describe('readPth', () => {
  it('finds tensors where they lie, in the order of the pickle', async () => {
    const data = pickle(
      dict({
        b: tensor({ key: '1', elements: 4, shape: [2, 2] }),
        a: tensor({ key: '0', elements: 2, shape: [], offset: 1 }),
        none: tensor({ key: '0', elements: 2, shape: [0, 3] }),
      }),
    );
    const bytes = pthBytes(data, { 0: floats(1, 2), 1: floats(3, 4, 5, 6) });
    const { tensors } = await readPth(await fileOf(bytes));
    expect([...tensors.values()].map(({ name, dtype, shape, length }) => [name, dtype, shape, length])).toEqual([
      ['b', 'F32', [2, 2], 16],
      ['a', 'F32', [], 4],
      ['none', 'F32', [0, 3], 0],
    ]);
    expect(await valuesOf(bytes, 'b')).toEqual([3, 4, 5, 6]);
    expect(await valuesOf(bytes, 'a')).toEqual([2]);
  });

  it('lets tensors share a storage', async () => {
    const whole = { elements: 4, shape: [4] };
    const data = pickle(dict({ whole: tensor(whole), half: tensor({ ...whole, shape: [2], offset: 2 }) }));
    expect(await valuesOf(pthBytes(data, { 0: floats(1, 2, 3, 4) }), 'half')).toEqual([3, 4]);
  });

  it('reads an archive with zip64 fields', async () => {
    expect(await valuesOf(pthBytes(one, { 0: floats(7, 8) }, { zip64: true }), 'a')).toEqual([7, 8]);
  });

  it.each([
    ['state_dict', dict({ epoch: int(3), state_dict: dict({ a: tensor({ elements: 2, shape: [2] }) }) })],
    ['model', dict({ model: dict({ a: tensor({ elements: 2, shape: [2] }) }) })],
    ['two of them', dict({ state_dict: dict({ model: dict({ a: tensor({ elements: 2, shape: [2] }) }) }) })],
  ])('unwraps %s', async (_, content) => {
    expect(await valuesOf(pthBytes(pickle(content), { 0: floats(1, 2) }), 'a')).toEqual([1, 2]);
  });

  it("reads a module's own dict: ordered, with metadata, of parameters", async () => {
    const parameter = Buffer.concat([
      named('torch._utils', '_rebuild_parameter'),
      tuple(tensor({ elements: 2, shape: [1, 2], strides: [99, 1] }), '\x88', orderedDict),
      Buffer.from('R'),
    ]);
    const data = pickle(orderedDict, '(', text('a'), parameter, 'u', dict({ _metadata: orderedDict }), 'b');
    expect(await valuesOf(pthBytes(data, { 0: floats(1, 2) }), 'a')).toEqual([1, 2]);
  });

  it('reads protocol 4: frames, short strings, memoized names from the stack', async () => {
    const short = (value: string) =>
      Buffer.concat([Buffer.from([0x8c, value.length]), Buffer.from(value), Buffer.from([0x94])]);
    const ordered = Buffer.concat([
      short('collections'),
      short('OrderedDict'),
      Buffer.from([0x93, 0x94]),
      Buffer.from(')R'),
    ]);
    const frame = Buffer.concat([Buffer.from([0x95]), Buffer.alloc(8)]);
    const data = pickle(frame, ordered, short('a'), tensor({ elements: 2, shape: [2] }), 's');
    data[1] = 4;
    expect(await valuesOf(pthBytes(data, { 0: floats(1, 2) }), 'a')).toEqual([1, 2]);
  });

  it('resolves symbolic links: the runtime refuses to follow them', async () => {
    const path = await fileOf(pthBytes(one, { 0: floats(1, 2) }));
    const link = join(await tempFolder(), 'link.pth');
    await symlink(path, link);
    expect((await readPth(link)).tensors.get('a')?.file).toBe(path);
  });

  // Larger than what is kept with the tests: GOLDENS names a folder with wan-tiny.
  const goldens = [fileURLToPath(new URL('../fixtures/goldens', import.meta.url)), process.env.GOLDENS ?? ''];
  for (const name of ['models_t5_umt5-xxl-enc-bf16.pth', 'Wan2.1_VAE.pth']) {
    const path = goldens.map((folder) => join(folder, 'wan-tiny', name)).find((candidate) => existsSync(candidate));
    it.skipIf(path === undefined)(`reads the golden ${name}, as torch wrote it`, async () => {
      const { file, tensors } = await readPth(path ?? '');
      const manifest = JSON.parse(await readFile(join(file, '..', 'original_manifest.json'), 'utf8'));
      const { dtype, hash_prefix: prefix, tensors: wanted } = manifest[name];
      expect([...tensors.values()].map((record) => [record.name, record.shape])).toEqual(wanted);
      const bytes = await readFile(file);
      for (const { name, shape, offset, length } of tensors.values()) {
        const expected = bytesFromFloats(assertFloatType(dtype), hashTensor(prefix + name, shape));
        expect(bytes.subarray(offset, offset + length).equals(expected), name).toBe(true);
      }
    });
  }
});

describe('readPth refuses', () => {
  const two = { elements: 2, shape: [2] };
  const storage = { 0: floats(1, 2) };
  const packed = (data: Buffer) => pthBytes(data, storage);
  const part = (name: string, content: Uint8Array = floats(1, 2)) => ({ name, content });
  const call = (module: string, name: string, args: Buffer) =>
    Buffer.concat([named(module, name), tuple(args), Buffer.from('R')]);
  const code = 'do not trust this file';

  const hostile: readonly [string, Buffer, string][] = [
    // what a pickle can do
    [
      'a pickle that names os.system',
      packed(pickle(call('os', 'system', text('true')))),
      `has a pickle that asks for "os.system", which no state dict needs; ${code}`,
    ],
    [
      'the same as Linux calls it',
      packed(pickle(call('posix', 'system', text('true')))),
      `has a pickle that asks for "posix.system", which no state dict needs; ${code}`,
    ],
    [
      'builtins.eval from the stack',
      packed(pickle(text('builtins'), text('eval'), '\x93')),
      `has a pickle that asks for "builtins.eval", which no state dict needs; ${code}`,
    ],
    [
      'a function of torch that loads files',
      packed(pickle(named('torch', 'load'))),
      `has a pickle that asks for "torch.load", which no state dict needs; ${code}`,
    ],
    [
      'a storage type by another path',
      packed(pickle(named('torch.evil', 'FloatStorage'))),
      `has a pickle that asks for "torch.evil.FloatStorage", which no state dict needs; ${code}`,
    ],
    [
      'the opcode INST',
      packed(pickle('(', 'ios\nsystem\n')),
      `has a pickle that uses the opcode INST, which no state dict needs; ${code}`,
    ],
    [
      'the opcode NEWOBJ',
      packed(pickle(orderedDict, ')', '\x81')),
      `has a pickle that uses the opcode NEWOBJ, which no state dict needs; ${code}`,
    ],
    [
      'an opcode that is none',
      packed(pickle('\xff')),
      `has a pickle that uses the opcode 0xff, which no state dict needs; ${code}`,
    ],
    [
      'a call of what is no function',
      packed(pickle(text('x'), ')R')),
      'has a pickle that calls something that is no function of torch._utils',
    ],
    [
      'a storage type that is called',
      packed(pickle(named('torch', 'FloatStorage'), ')R')),
      'has a pickle that calls something that is no function of torch._utils',
    ],
    [
      'attributes of a tensor',
      packed(pickle(tensor(two), dict({}), 'b')),
      'has a pickle that gives attributes to something that is no dict',
    ],
    [
      'an OrderedDict of something',
      packed(pickle(call('collections', 'OrderedDict', text('x')))),
      'has a pickle that makes an OrderedDict of something; torch makes an empty one and fills it',
    ],
    [
      'a reference to what is no storage',
      packed(pickle(text('x'), 'Q')),
      'has a pickle that refers to something else than a storage',
    ],
    [
      'a tensor of text',
      packed(pickle(call('torch._utils', '_rebuild_tensor_v2', text('x')))),
      'has a pickle that rebuilds a tensor from something else than storage, offset, size and strides',
    ],
    [
      'a negative size',
      packed(pickle(dict({ a: tensor({ elements: 2, shape: [-1], strides: [1] }) }))),
      'has a pickle that rebuilds a tensor from something else than storage, offset, size and strides',
    ],
    ['protocol 6', packed(Buffer.from([0x80, 6, 0x2e])), 'has a pickle that is of protocol 6; 2 to 5 are known'],
    ['a pickle that ends early', packed(one.subarray(0, 20)), 'has a pickle that ends inside an opcode, at byte 20'],
    [
      'text of 4 GB',
      packed(pickle(Buffer.from('X\xff\xff\xff\xff', 'latin1'))),
      'has a pickle that ends inside an opcode, at byte 8',
    ],
    ['a value that is not there', packed(pickle('Q')), 'has a pickle that uses a value that is not there'],
    ['a value below the mark', packed(pickle('N(', '\x85')), 'has a pickle that uses a value that is not there'],
    ['a run that never began', packed(pickle('t')), 'has a pickle that ends a run of values that it never began'],
    [
      'a memory that it has not',
      packed(pickle('h\x07')),
      'has a pickle that recalls value 7, which it never remembered',
    ],
    ['a key without a value', packed(pickle('}(', text('a'), 'u')), 'has a pickle that sets a key without a value'],
    [
      'entries of a list',
      packed(pickle(']', text('a'), 'N', 's')),
      'has a pickle that sets entries of something that is no dict',
    ],
    [
      '100001 values at once',
      packed(pickle('N'.repeat(100_001))),
      'has a pickle that holds more than 100000 values at once',
    ],
    ['1001 marks', packed(pickle('('.repeat(1001))), 'has a pickle that is nested more than 1000 deep'],
    [
      '2000000 opcodes',
      packed(pickle(')', '\x85'.repeat(2_000_000))),
      'has a pickle that has more than 2000000 opcodes',
    ],
    ['a number of 9 bytes', packed(pickle('\x8a\x09', '\x01'.repeat(9))), 'has a pickle that has a number of 9 bytes'],
    ['a list', packed(pickle(']')), 'holds no dict of tensors'],
    ['a dict that holds itself', packed(pickle('}q\x00', text('model'), 'h\x00', 's')), 'holds no dict of tensors'],
    // where its tensors lie
    [
      'a storage that is missing',
      packed(pickle(dict({ a: tensor({ ...two, key: '9' }) }))),
      'has no entry model/data/9, where tensor "a" lies',
    ],
    [
      'a storage key that leads elsewhere',
      packed(pickle(dict({ a: tensor({ ...two, key: '../byteorder' }) }))),
      'has no entry model/data/../byteorder, where tensor "a" lies',
    ],
    [
      'a storage of another length',
      packed(pickle(dict({ a: tensor({ elements: 3, shape: [3] }) }))),
      'holds 8 bytes in model/data/0, but 3 elements of F32 take 12',
    ],
    [
      'a tensor beyond its storage',
      packed(pickle(dict({ a: tensor({ ...two, offset: 1 }) }))),
      'has tensor "a" end at element 3 of model/data/0, which has 2',
    ],
    [
      'a product that overflows',
      packed(
        pickle(
          dict({ a: tensor({ elements: 2, shape: [2 ** 31 - 1, 65536, 32767], strides: [65536 * 32767, 32767, 1] }) }),
        ),
      ),
      `has tensor "a" end at element ${(2 ** 31 - 1) * 65536 * 32767} of model/data/0, which has 2`,
    ],
    [
      'a transposed tensor',
      pthBytes(pickle(dict({ a: tensor({ elements: 6, shape: [3, 2], strides: [1, 3] }) })), {
        0: floats(1, 2, 3, 4, 5, 6),
      }),
      'has tensor "a" [3, 2] with strides [1, 3], not row after row; save it again with .contiguous()',
    ],
    [
      '17 dimensions',
      packed(pickle(dict({ a: tensor({ elements: 2, shape: new Array(17).fill(1) }) }))),
      'has a pickle that gives a tensor 17 dimensions, the limit is 16',
    ],
    [
      'a big-endian file',
      zipBytes([part('m/data.pkl', one), part('m/byteorder', Buffer.from('big'))]),
      'says its byte order is "big"; only "little" can be read in place',
    ],
    // what an archive can do
    ['an empty file', Buffer.alloc(0), 'is truncated, or no zip archive: its directory is missing'],
    ['a truncated file', packed(one).subarray(0, -30), 'is truncated, or no zip archive: its directory is missing'],
    [
      'the format before torch 1.6',
      Buffer.from([0x80, 2, 0x8a, 10]),
      'is in the format of torch before 1.6; load it and save it again with torch.save',
    ],
    [
      'an archive of something else',
      zipBytes([part('word/document.xml')]),
      'is a zip archive without data.pkl; it is no PyTorch checkpoint',
    ],
    [
      'two pickles',
      zipBytes([part('a/data.pkl', one), part('b/data.pkl', one)]),
      'has two pickles, a/data.pkl and b/data.pkl',
    ],
    [
      'a compressed entry',
      zipBytes([{ ...part('m/data.pkl'), method: 8 }]),
      'has the entry "m/data.pkl" compressed; PyTorch stores entries as they are, and only so can they be read in place',
    ],
    ['an encrypted entry', zipBytes([{ ...part('m/data.pkl'), flags: 1 }]), 'has the entry "m/data.pkl" encrypted'],
    [
      'an absolute path',
      pthBytes(one, storage, { more: [part('/etc/passwd')] }),
      'has an entry called "/etc/passwd", which is no plain relative path',
    ],
    [
      'a path that leads upwards',
      pthBytes(one, storage, { more: [part('model/../../x')] }),
      'has an entry called "model/../../x", which is no plain relative path',
    ],
    [
      'a Windows path',
      pthBytes(one, storage, { more: [part('C:\\x')] }),
      'has an entry called "C:\\\\x", which is no plain relative path',
    ],
    [
      'a name with a NUL',
      pthBytes(one, storage, { more: [part('model/x\0.pkl')] }),
      'has an entry called "model/x\\u0000.pkl", which is no plain relative path',
    ],
    ['the same name twice', pthBytes(one, storage, { more: [part('model/data/0')] }), 'has two entries "model/data/0"'],
    [
      'overlapping entries',
      pthBytes(one, storage, {
        more: [{ ...part('model/data/0'), name: 'model/data/1', localName: 'model/data/1', header: 0 }],
      }),
      `has overlapping entries: "model/data/1" starts at byte 0, before ${30 + 14 + one.length}`,
    ],
    [
      'an entry that swallows the next',
      zipBytes([{ ...part('m/data.pkl'), length: 50 }, part('m/data/0')]),
      'has overlapping entries: "m/data/0" starts at byte 48, before 90',
    ],
    [
      'an entry of 4 GB',
      zipBytes([{ ...part('m/data.pkl'), length: 4_000_000_000 }]),
      'has the entry "m/data.pkl", which ends at byte 4000000040, inside its directory',
    ],
    [
      'an entry outside the file',
      zipBytes([{ ...part('m/data.pkl'), header: 5_000_000 }]),
      'has the entry "m/data.pkl" outside the file',
    ],
    [
      'an entry of another name',
      zipBytes([{ ...part('m/data.pkl'), localName: 'm/evil.pkl' }]),
      'has no entry "m/data.pkl" where its directory says',
    ],
    [
      'a directory outside the file',
      zipBytes([part('m/data.pkl')], { directoryOffset: 5_000_000 }),
      'has a directory that lies outside the file',
    ],
    [
      'a directory of 16 MB',
      zipBytes([part('m/data.pkl')], { directoryLength: 16_000_001 }),
      'has a directory of 16000001 bytes, the limit is 16000000',
    ],
    ['more entries than listed', zipBytes([part('m/data.pkl')], { count: 2 }), 'lists 1 entries where it promises 2'],
    [
      '20001 entries',
      zipBytes([part('m/data.pkl')], { zip64: true, count: 20_001 }),
      'has 20001 entries, the limit is 20000',
    ],
    [
      'a place beyond 2^53',
      zipBytes([part('m/data.pkl')], { zip64: true, directoryOffset: 2 ** 60 }),
      'has a directory that lies outside the file',
    ],
  ];

  it.each(hostile)('%s', async (_, bytes, message) => {
    const path = await fileOf(bytes);
    const error = await readPth(path).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).toMatchObject({ reason: 'CHECKPOINT_INVALID', message: `${path} ${message}` });
  });

  it('a pickle of more than 16 MB', async () => {
    const bytes = zipBytes([part('m/data.pkl', Buffer.alloc(16_000_001))]);
    await expect(readPth(await fileOf(bytes))).rejects.toThrow('has a pickle of 16000001 bytes, the limit is 16000000');
  });

  it('a file that is not there', async () => {
    const path = join(await tempFolder(), 'none.pth');
    await expect(readPth(path)).rejects.toThrow(`${path} does not exist or cannot be read`);
  });
});
