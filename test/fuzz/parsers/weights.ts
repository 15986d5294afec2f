import { open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readGgufWeights } from '../../../src/weights/gguf/gguf-weights.js';
import { writeGguf } from '../../../src/weights/gguf/gguf-writer.js';
import { readSplitGgufHeader } from '../../../src/weights/gguf/split-gguf.js';
import { readPickle } from '../../../src/weights/pth/pickle.js';
import { readPth } from '../../../src/weights/pth/pth.js';
import { readSafetensors } from '../../../src/weights/safetensors.js';
import { writeGgufFile } from '../../support/gguf-file.js';
import { dict, pickle, pthBytes, tensor } from '../../support/pth-bytes.js';
import { safetensorsBytes } from '../../support/safetensors-bytes.js';
import { type FuzzedParser, f32, fileOf, hold, holdPlaces, root } from './parser.js';

export const parsers: readonly FuzzedParser[] = [
  {
    name: 'safetensors',
    seeds: async () => [
      safetensorsBytes(
        { __metadata__: { format: 'pt' }, a: f32([2], 0, 8), 'b.c': f32([], 8, 12) },
        new Uint8Array(12),
      ),
    ],
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'model.safetensors');
      await holdPlaces(path, (await readSafetensors(path)).tensors.values());
    },
  },
  {
    name: 'pickle',
    seeds: async () => [
      pickle(
        dict({
          a: tensor({ elements: 4, shape: [2, 2] }),
          b: tensor({ key: '1', elements: 3, offset: 1, shape: [2] }),
        }),
      ),
    ],
    parse: async (bytes) =>
      readPickle(bytes, (problem) => {
        throw new Error(problem);
      }),
  },
  {
    name: 'zip',
    seeds: async () => {
      const state = pickle(dict({ a: tensor({ elements: 4, shape: [2, 2] }) }));
      return [pthBytes(state, { 0: new Uint8Array(16) }), pthBytes(state, { 0: new Uint8Array(16) }, { zip64: true })];
    },
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'model.pth');
      await holdPlaces(path, (await readPth(path)).tensors.values());
    },
  },
  {
    name: 'gguf',
    async seeds(folder) {
      const path = join(folder, 'seed.gguf');
      const handle = await open(path, 'w');
      await writeGguf(handle, {
        metadata: new Map([
          ['general.architecture', { kind: 'string', value: 'qwen2' }],
          ['a.count', { kind: 'uint32', value: 7 }],
          ['a.flag', { kind: 'bool', value: true }],
          ['a.words', { kind: 'strings', value: ['a', 'bc', ''] }],
          ['a.kinds', { kind: 'int32s', value: [1, -3] }],
        ]),
        tensors: [{ name: 'w', shape: [1, 32], type: 'Q8_0', read: () => [new Uint8Array(34)] }],
      }).finally(() => handle.close());
      return [await readFile(path)];
    },
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'model.gguf');
      await holdPlaces(path, (await readSplitGgufHeader(path)).tensors.values());
    },
  },
  {
    name: 'gguf-weights',
    async seeds(folder) {
      const path = join(folder, 'seed.gguf');
      const q8 = (name: string, shape: readonly number[], blocks: number) =>
        ({ name, shape, type: 'Q8_0', read: () => [new Uint8Array(34 * blocks)] }) as const;
      await writeGgufFile(
        path,
        [
          q8('w', [2, 32], 2),
          q8('folded', [4, 32], 4),
          { name: 'p', shape: [1, 1, 1, 2, 2], type: 'F32', read: () => [new Uint8Array(16)] },
        ],
        [['comfy.gguf.orig_shape.folded', { kind: 'int32s', value: [2, 16, 2, 2] }]],
      );
      // One tensor of each block type.
      return [await readFile(path), await readFile(root('test/fixtures/gguf/types.gguf'))];
    },
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'weights.gguf');
      const cacheFolder = join(folder, 'weights-cache');
      const { tensors, prepare } = await readGgufWeights(path, { cacheFolder });
      const [own, converted] = [true, false].map((isOwn) =>
        [...tensors.values()].filter(({ storedAs }) => (storedAs === undefined) === isOwn),
      );
      await holdPlaces(path, own ?? []);
      await prepare?.();
      const [file] = new Set(converted?.map((record) => record.file));
      if (file !== undefined) {
        await holdPlaces(file, converted ?? []);
        hold((await readSafetensors(file)).tensors.size === converted?.length, 'a converted file of other tensors');
        hold((await stat(file)).size <= 16 * bytes.length + 4096, 'a converted file much larger than its source');
      }
      await rm(cacheFolder, { recursive: true, force: true });
    },
  },
];
