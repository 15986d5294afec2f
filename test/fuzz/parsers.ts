/** The readers of foreign bytes: what each is given to begin with, and what must hold of whatever it accepts. */
import { mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { contractJobTypes } from '../../src/job-types.js';
import { decodeReference } from '../../src/media/decode-reference.js';
import { NetworkOpener } from '../../src/pipelines/common/network-opener.js';
import { readControlNetSummary } from '../../src/pipelines/controlnets/controlnet-summary.js';
import { readEmbeddingSummary } from '../../src/pipelines/embeddings/embedding-summary.js';
import { readEmbedding } from '../../src/pipelines/embeddings/read-embedding.js';
import { readLoraSummary } from '../../src/pipelines/lora/lora-summary.js';
import { readLora } from '../../src/pipelines/lora/read-lora.js';
import { openControlNet } from '../../src/pipelines/sdxl/checkpoint/controlnet.js';
import { openImagePrompt } from '../../src/pipelines/sdxl/checkpoint/ip-adapter.js';
import { readSdxlConfig } from '../../src/pipelines/sdxl/checkpoint/read-config.js';
import { sdxlLoraNames } from '../../src/pipelines/sdxl/lora-names.js';
import { planUpscalerWeights, Upscaler } from '../../src/pipelines/upscalers/upscaler.js';
import { readUpscalerSummary } from '../../src/pipelines/upscalers/upscaler-summary.js';
import { readPayload } from '../../src/queue-bridge/payload/payload.js';
import { writeSyntheticImageEncoder, writeSyntheticIpAdapter } from '../../src/synthetic/ip-adapter.js';
import { readClipTokenizer } from '../../src/tokenizer/clip.js';
import { readUmt5Tokenizer, umt5TokenizerFromModel } from '../../src/tokenizer/umt5.js';
import { readGgufWeights } from '../../src/weights/gguf/gguf-weights.js';
import { writeGguf } from '../../src/weights/gguf/gguf-writer.js';
import { readSplitGgufHeader } from '../../src/weights/gguf/split-gguf.js';
import { readPickle } from '../../src/weights/pth/pickle.js';
import { readPth } from '../../src/weights/pth/pth.js';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { writeGgufFile } from '../support/gguf-file.js';
import { dict, pickle, pthBytes, tensor } from '../support/pth-bytes.js';
import { safetensorsBytes } from '../support/safetensors-bytes.js';

const root = (path: string) =>
  fileURLToPath(new URL(`../../${import.meta.url.includes('/dist/') ? '../' : ''}${path}`, import.meta.url));

export interface FuzzedParser {
  readonly name: string;
  seeds(folder: string): Promise<readonly Buffer[]>;
  /** Reads bytes, from a file in the folder where the reader takes one. @throws what the reader throws, and WrongAcceptance */
  parse(bytes: Buffer, folder: string): Promise<unknown>;
}

export class WrongAcceptance extends Error {}

function hold(condition: boolean, what: string): void {
  if (!condition) throw new WrongAcceptance(what);
}

interface Placed {
  readonly offset: number;
  readonly length: number;
}

async function holdPlaces(path: string, tensors: Iterable<Placed>): Promise<void> {
  const { size } = await stat(path);
  for (const { offset, length } of tensors) {
    hold(Number.isSafeInteger(offset) && Number.isSafeInteger(length), 'a tensor whose place is no number');
    hold(offset >= 0 && length >= 0 && offset + length <= size, 'a tensor outside of its file');
  }
}

async function fileOf(bytes: Buffer, folder: string, name: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

const f32 = (shape: readonly number[], begin: number, end: number) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
});

const loraSeed = () => {
  const module = 'unet.mid_block.attentions.0.proj_in';
  const settings = { 'unet.r': 1, 'unet.lora_alpha': 2, 'unet.alpha_pattern': { proj_in: 3 } };
  const header = {
    __metadata__: { lora_adapter_metadata: JSON.stringify(settings), ss_tag_frequency: '{"a":{"red":2}}' },
    [`${module}.lora_A.weight`]: f32([1, 128], 0, 512),
    [`${module}.lora_B.weight`]: f32([128, 1], 512, 1024),
    [`${module}.alpha`]: f32([], 1024, 1028),
    [`${module}.diff_b`]: f32([128], 1028, 1540),
  };
  return safetensorsBytes(header, new Uint8Array(1540));
};

/** The methods beside LoRA: DoRA, LoHa and LoKr, each over one module. */
const methodsSeed = () => {
  const [dora, loha, lokr] = ['0', '1', '2'].map(
    (i) => `unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_${'qkv'[+i]}`,
  );
  const shapes: readonly (readonly [name: string, shape: readonly number[]])[] = [
    [`${dora}.lora_A.weight`, [1, 128]],
    [`${dora}.lora_B.weight`, [128, 1]],
    [`${dora}.lora_magnitude_vector`, [128]],
    ...['w1', 'w2'].flatMap((w): [string, number[]][] => [
      [`${loha}.hada_${w}_a`, [128, 1]],
      [`${loha}.hada_${w}_b`, [1, 128]],
    ]),
    [`${lokr}.lokr_w1`, [2, 2]],
    [`${lokr}.lokr_w2_a`, [64, 1]],
    [`${lokr}.lokr_w2_b`, [1, 64]],
  ];
  return zeros(shapes);
};

/** A safetensors file of zeros. */
function zeros(shapes: readonly (readonly [name: string, shape: readonly number[]])[]): Buffer {
  let end = 0;
  const header = shapes.map(([name, shape]) => {
    const begin = end;
    end += 4 * shape.reduce((product, dim) => product * dim, 1);
    return [name, f32(shape, begin, end)] as const;
  });
  return safetensorsBytes(Object.fromEntries(header), new Uint8Array(end));
}

const TEXT = 'a Red circle, at  dawn! 12 é';

const tinyConfig = readSdxlConfig(root('assets/tiny-sdxl'));
const loraNames = tinyConfig.then(sdxlLoraNames);

/** The smallest header that is taken for an SDXL's ControlNet in the original names. */
const controlNetSeed = () => {
  const names = [...[0, 2, 4, 6, 8, 10, 12, 14].map((i) => `input_hint_block.${i}`), 'label_emb.0.0', 'zero_convs.0.0'];
  const header = names.map((name, i) => [`control_model.${name}.weight`, f32([1], 4 * i, 4 * i + 4)]);
  return safetensorsBytes(Object.fromEntries(header), new Uint8Array(4 * names.length));
};

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
    name: 'lora',
    seeds: async () => [loraSeed(), methodsSeed()],
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'lora.safetensors');
      await readLoraSummary(path);
      const { updates } = await readLora(path, await loraNames);
      for (const { update } of updates) hold(Number.isFinite(update.scale), 'a LoRA without a finite scale');
    },
  },
  {
    name: 'embedding',
    seeds: async () => {
      const param = pickle(dict({ string_to_param: dict({ '*': tensor({ elements: 64, shape: [2, 32] }) }) }));
      return [
        safetensorsBytes({ clip_l: f32([2, 32], 0, 256), clip_g: f32([1, 48], 256, 448) }, new Uint8Array(448)),
        pthBytes(param, { 0: new Uint8Array(256) }),
      ];
    },
    async parse(bytes, folder) {
      const isZip = bytes.subarray(0, 2).toString('latin1') === 'PK';
      const path = await fileOf(bytes, folder, `ink.${isZip ? 'pt' : 'safetensors'}`);
      await readEmbeddingSummary(path);
      const { encoders } = await readEmbedding({ name: 'ink', path }, [32, 48]);
      for (const vectors of encoders) hold(vectors?.values.every(Number.isFinite) !== false, 'a vector of no numbers');
    },
  },
  {
    name: 'upscaler',
    seeds: async () => [
      zeros(planUpscalerWeights({ kind: 'compact', channels: 4, convolutions: 1, scale: 2 })),
      zeros(
        planUpscalerWeights({
          ...{ kind: 'esrgan', channels: 4, growth: 2, blocks: 1 },
          ...{ doublings: 1, unshuffle: 1, scale: 2 },
        }),
      ),
    ],
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'x2.safetensors');
      const { scale } = await readUpscalerSummary(path);
      hold(scale >= 1 && scale <= 8, 'an upscaler of an odd scale');
      await (await Upscaler.open(path, new NetworkOpener(cpuBackend, []))).release();
    },
  },
  {
    name: 'controlnet',
    seeds: async () => [controlNetSeed()],
    async parse(bytes, folder) {
      const path = await fileOf(bytes, folder, 'depth.safetensors');
      await readControlNetSummary(path);
      const { files } = await openControlNet(path, await tinyConfig);
      await holdPlaces(path, files.tensors.values());
    },
  },
  {
    name: 'ip adapter',
    async seeds(folder) {
      const path = join(folder, 'seed.safetensors');
      const seeds: Buffer[] = [];
      await writeSyntheticImageEncoder(join(folder, 'image-encoder'), 'clip-image-encoder-tiny');
      for (const size of ['sdxl-ip-adapter-tiny', 'sdxl-ip-adapter-plus-tiny'] as const) {
        await writeSyntheticIpAdapter(path, size);
        seeds.push(await readFile(path));
      }
      return seeds;
    },
    async parse(bytes, folder) {
      const adapter = await fileOf(bytes, folder, 'adapter.safetensors');
      const encoder = join(folder, 'image-encoder');
      const { attention, files } = await openImagePrompt({ adapter, encoder }, (await tinyConfig).unet);
      await holdPlaces(adapter, [...attention.values(), ...files.image_projection.tensors.values()]);
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
  {
    name: 'tokenizer-umt5',
    seeds: async () => [
      Buffer.from(
        JSON.stringify({
          added_tokens: [{ id: 1, content: '</s>', special: true, normalized: false }],
          normalizer: {
            type: 'Sequence',
            normalizers: [{ type: 'NFKC' }, { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' }],
          },
          pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
          post_processor: {
            type: 'TemplateProcessing',
            single: [{ Sequence: { id: 'A' } }, { SpecialToken: { id: '</s>' } }],
            special_tokens: { '</s>': { ids: [1] } },
          },
          model: {
            type: 'Unigram',
            unk_id: 2,
            vocab: ['<pad>', '</s>', '<unk>', '▁', 'a', '▁red', 'circle', 'c'].map((piece, i) => [piece, -i]),
          },
        }),
      ),
    ],
    async parse(bytes, folder) {
      const tokenizer = await readUmt5Tokenizer(await fileOf(bytes, folder, 'tokenizer.json'));
      const { ids } = tokenizer.encode(TEXT);
      hold(ids.length <= tokenizer.maxLength + 64, 'a tokenizer that does not cut');
    },
  },
  {
    name: 'tokenizer-clip',
    seeds: async () => [
      Buffer.from(
        JSON.stringify({
          added_tokens: [
            { id: 4, content: '<|startoftext|>', normalized: false },
            { id: 5, content: '<|endoftext|>', normalized: false },
          ],
          normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Lowercase' }] },
          pre_tokenizer: {
            type: 'Sequence',
            pretokenizers: [
              { type: 'Split', pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" } },
              { type: 'ByteLevel', add_prefix_space: false },
            ],
          },
          post_processor: { type: 'RobertaProcessing', sep: ['<|endoftext|>', 5], cls: ['<|startoftext|>', 4] },
          model: {
            type: 'BPE',
            unk_token: '<|endoftext|>',
            end_of_word_suffix: '</w>',
            vocab: { a: 0, 'a</w>': 1, r: 2, 'ra</w>': 3 },
            merges: ['r a</w>'],
          },
        }),
      ),
    ],
    async parse(bytes, folder) {
      const own = join(folder, 'clip');
      await rm(own, { recursive: true, force: true });
      await mkdir(own);
      await fileOf(bytes, own, 'tokenizer.json');
      const tokenizer = await readClipTokenizer(own);
      hold(tokenizer.encode(TEXT).ids.length === tokenizer.maxLength, 'a tokenizer that does not fill its length');
    },
  },
  {
    name: 'sentencepiece',
    seeds: async () => [await readFile(root('assets/tiny-wan/tokenizer/spiece.model'))],
    async parse(bytes) {
      const tokenizer = umt5TokenizerFromModel(bytes);
      for (const id of tokenizer.encode(TEXT).ids) hold(id >= 0, 'a token without an id');
    },
  },
  {
    name: 'image',
    seeds: async () => {
      const image = () =>
        sharp({ create: { width: 24, height: 16, channels: 4, background: { r: 200, g: 30, b: 60, alpha: 0.5 } } });
      return [
        await image().png().toBuffer(),
        await image().jpeg({ progressive: true }).toBuffer(),
        await image().webp().toBuffer(),
      ];
    },
    async parse(bytes) {
      const { rgb } = await decodeReference(bytes, { width: 32, height: 32, maxPixels: 50_000_000 });
      hold(rgb.length === 32 * 32 * 3, 'an image of another size');
    },
  },
  {
    name: 'payload',
    seeds: async () => [
      Buffer.from(
        JSON.stringify({
          id: 'job-1',
          type: 'sdxl_image_fast_1x',
          prompt: 'a red circle',
          user_id: 'user-1',
          compel_enabled: true,
          compel_weights: '(red)1.2',
          config: { num_images: 1, seed: 7, steps: 4, guidance_scale: 2.5, scheduler: 'euler', width: 64, height: 64 },
          metadata: { reference_type: 'style', reference_strength: 0.5, start_reference_url: '' },
        }),
      ),
    ],
    async parse(bytes) {
      const read = readPayload(bytes.toString('utf8'), { jobTypes: contractJobTypes });
      hold(typeof read === 'object' && read !== null, 'a payload that is read as nothing');
    },
  },
];
