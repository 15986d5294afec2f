import { appendFile, mkdir, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readQwenConfig } from '../../src/enhancer/qwen/config.js';
import { type ConversionProgress, type ConvertOptions, convertToGguf } from '../../src/enhancer/qwen/convert.js';
import { readQwenGguf } from '../../src/enhancer/qwen/qwen-gguf.js';
import { wantedTensors } from '../../src/enhancer/qwen/weights.js';
import { writeSyntheticQwen } from '../../src/synthetic/qwen.js';
import { writeHashSafetensors } from '../../src/synthetic/write-safetensors.js';
import { readGgufHeader } from '../../src/weights/gguf/gguf-header.js';
import { quantize } from '../../src/weights/gguf/quantize.js';
import { floatsFrom } from '../../src/weights/half-floats.js';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { rebuildModel } from '../conformance/golden-folder.js';
import { safetensorsBytes } from '../support/safetensors-bytes.js';
import { tempFolder } from '../support/temp-folder.js';

const goldens = fileURLToPath(new URL('../fixtures/goldens/qwen-tiny', import.meta.url));

const manifest = JSON.parse(await readFile(join(goldens, 'manifest.json'), 'utf8')) as {
  readonly 'model.safetensors': {
    readonly dtype: 'BF16';
    readonly hash_prefix: string;
    readonly tensors: readonly (readonly [string, readonly number[]])[];
  };
};

/** qwen-tiny, to be changed; and an empty cache. */
async function tiny(changes: Readonly<Record<string, object>> = {}): Promise<{ folder: string; cacheFolder: string }> {
  const folder = await rebuildModel(goldens, join(await tempFolder(), 'qwen-tiny'), 'model');
  for (const [file, values] of Object.entries(changes)) {
    const path = join(folder, file);
    const json = JSON.parse(await readFile(path, 'utf8').catch(() => '{}')) as object;
    await writeFile(path, JSON.stringify({ ...json, ...values }));
  }
  return { folder, cacheFolder: join(await tempFolder(), 'cache') };
}

async function convertTiny(options: ConvertOptions = {}, changes?: Readonly<Record<string, object>>) {
  const { folder, cacheFolder } = await tiny(changes);
  const conversion = await convertToGguf(folder, { cacheFolder, ...options });
  return { folder, cacheFolder, conversion, header: await readGgufHeader(conversion.path) };
}

describe('convertToGguf', () => {
  it('takes a vocabulary as large as the released ones', async () => {
    const folder = await writeSyntheticQwen(join(await tempFolder(), 'qwen'), 'qwen-tiny');
    const path = join(folder, 'config.json');
    const config = JSON.parse(await readFile(path, 'utf8')) as object;
    await rm(join(folder, 'model.safetensors'));
    await writeFile(path, JSON.stringify({ ...config, vocab_size: 152_064, hidden_size: 32, num_hidden_layers: 1 }));
    const tensors = wantedTensors(await readQwenConfig(folder)).map(({ key, shape }) => [key, shape] as const);
    await writeHashSafetensors(join(folder, 'model.safetensors'), { dtype: 'BF16', hashPrefix: '', tensors });
    const { path: gguf } = await convertToGguf(folder, { cacheFolder: await tempFolder() });
    const { metadata } = await readGgufHeader(gguf);
    expect(metadata.get('tokenizer.ggml.tokens')).toHaveLength(152_064);
    expect(metadata.get('tokenizer.ggml.token_type')).toHaveLength(152_064);
  });

  it('writes the metadata that llama.cpp reads of a qwen2', async () => {
    const { header } = await convertTiny();
    const {
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': types,
      'tokenizer.ggml.merges': merges,
      ...rest
    } = Object.fromEntries(header.metadata);
    expect(rest).toEqual({
      'general.architecture': 'qwen2',
      'general.type': 'model',
      'general.name': 'qwen-tiny',
      'general.file_type': 7,
      'general.quantization_version': 2,
      'qwen2.vocab_size': 620,
      'qwen2.block_count': 2,
      'qwen2.context_length': 4096,
      'qwen2.embedding_length': 64,
      'qwen2.feed_forward_length': 160,
      'qwen2.attention.head_count': 4,
      'qwen2.attention.head_count_kv': 2,
      'qwen2.attention.layer_norm_rms_epsilon': Math.fround(1e-6),
      'qwen2.rope.freq_base': 1_000_000,
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': 'qwen2',
      'tokenizer.ggml.bos_token_id': 617,
      'tokenizer.ggml.eos_token_id': 617,
      'tokenizer.ggml.padding_token_id': 617,
      'tokenizer.ggml.add_bos_token': false,
      'tokenizer.chat_template': expect.stringMatching(/^\{% for m in messages %\}<\|im_start\|>/) as string,
    });
    expect(tokens).toHaveLength(620);
    expect(tokens).toEqual(expect.arrayContaining(['!', 'Ġs', '<|endoftext|>', '<|im_start|>', '<|im_end|>']));
    expect((types as number[]).slice(615)).toEqual([1, 1, 3, 3, 3]);
    expect((merges as string[]).slice(0, 3)).toEqual(['i n', 'o n', 'Ġ s']);
  });

  it.each([
    ['q8_0', 'Q8_0', 7],
    ['f16', 'F16', 1],
    ['bf16', 'BF16', 32],
    ['f32', 'F32', 0],
  ] as const)(
    '%s: matrices are %s, norms and biases F32, every value as it should be',
    async (type, stored, fileType) => {
      const { folder, header } = await convertTiny({ type });
      expect(header.metadata.get('general.file_type')).toBe(fileType);
      const source = await readSafetensors(join(folder, 'model.safetensors'));
      const sourceBytes = await readFile(source.file);
      const bytes = await readFile(header.path);
      const wanted = wantedTensors(await readQwenConfig(folder));
      expect([...header.tensors.keys()]).toEqual(wanted.map(({ name }) => name));
      expect(header.tensors.size).toBe(27);
      for (const { key, name } of wanted) {
        const { offset, length, shape, type: found } = header.tensors.get(name) ?? expect.fail(name);
        const record = source.tensors.get(key) ?? expect.fail(key);
        expect(shape, name).toEqual(record.shape);
        expect(found, name).toBe(shape.length === 1 ? 'F32' : stored);
        const values = floatsFrom(
          'BF16',
          new Uint8Array(sourceBytes.subarray(record.offset, record.offset + record.length)),
        );
        expect(
          bytes.subarray(offset, offset + length).equals(quantize(shape.length === 1 ? 'F32' : stored, values)),
          name,
        ).toBe(true);
      }
    },
  );

  it('writes no output layer for tied embeddings, even where the checkpoint keeps a copy', async () => {
    const { header } = await convertTiny({}, { 'config.json': { tie_word_embeddings: true } });
    expect(header.tensors.has('output.weight')).toBe(false);
    expect(header.tensors.size).toBe(26);
  });

  it('gives the same file from shards, whatever their order', async () => {
    const { folder, cacheFolder } = await tiny();
    const whole = await convertToGguf(folder, { cacheFolder });
    const wholeBytes = await readFile(whole.path);
    const { dtype, hash_prefix: hashPrefix, tensors } = manifest['model.safetensors'];
    const weightMap: Record<string, string> = {};
    for (const i of [0, 1, 2]) {
      const shard = `model-0000${i + 1}-of-00003.safetensors`;
      const own = tensors.filter((_, k) => k % 3 === i).reverse();
      await writeHashSafetensors(join(folder, shard), { dtype, hashPrefix, tensors: own });
      for (const [name] of own) weightMap[name] = shard;
    }
    await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }));
    await rm(join(folder, 'model.safetensors'));
    const sharded = await convertToGguf(folder, { cacheFolder });
    expect(sharded.path).not.toBe(whole.path);
    expect((await readFile(sharded.path)).equals(wholeBytes)).toBe(true);
  });

  it('reads vocab.json and merges.txt where there is no tokenizer.json', async () => {
    const { folder, cacheFolder } = await tiny();
    const first = await readGgufHeader((await convertToGguf(folder, { cacheFolder })).path);
    await rm(join(folder, 'tokenizer.json'));
    const second = await readGgufHeader((await convertToGguf(folder, { cacheFolder })).path);
    expect(second.path).not.toBe(first.path);
    expect(second.metadata).toEqual(first.metadata);
  });

  it('pads a vocabulary to the size of the embedding, and prefers a template of its own file', async () => {
    const { folder, cacheFolder } = await tiny({ 'config.json': { vocab_size: 624, tie_word_embeddings: true } });
    const { dtype, hash_prefix: hashPrefix, tensors } = manifest['model.safetensors'];
    const wider = tensors.map(([name, [rows = 0, ...rest]]) => [name, [rows === 620 ? 624 : rows, ...rest]] as const);
    await writeHashSafetensors(join(folder, 'model.safetensors'), { dtype, hashPrefix, tensors: wider });
    await writeFile(join(folder, 'chat_template.jinja'), '{{ messages }}');
    const { metadata } = await readGgufHeader((await convertToGguf(folder, { cacheFolder })).path);
    expect((metadata.get('tokenizer.ggml.tokens') as string[]).slice(619)).toEqual([
      '<|im_end|>',
      '[PAD620]',
      '[PAD621]',
      '[PAD622]',
      '[PAD623]',
    ]);
    expect((metadata.get('tokenizer.ggml.token_type') as number[]).slice(619)).toEqual([3, 5, 5, 5, 5]);
    expect(metadata.get('tokenizer.chat_template')).toBe('{{ messages }}');
  });

  it('takes the end token of an instruct model from its tokenizer, else from generation_config.json', async () => {
    const instruct = await convertTiny({}, { 'tokenizer_config.json': { eos_token: '<|im_end|>' } });
    expect(instruct.header.metadata.get('tokenizer.ggml.eos_token_id')).toBe(619);
    const generation = await convertTiny(
      {},
      {
        'tokenizer_config.json': { eos_token: null },
        'config.json': { eos_token_id: null },
        'generation_config.json': { eos_token_id: [618, 617] },
      },
    );
    expect(generation.header.metadata.get('tokenizer.ggml.eos_token_id')).toBe(618);
  });

  it('writes a YaRN of the configuration, and keeps to a sliding window', async () => {
    const { header } = await convertTiny(
      {},
      {
        'config.json': {
          rope_parameters: undefined,
          rope_theta: 10_000,
          rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 4096 },
          use_sliding_window: true,
          sliding_window: 1024,
        },
      },
    );
    expect(header.metadata.get('qwen2.rope.scaling.type')).toBe('yarn');
    expect(header.metadata.get('qwen2.rope.scaling.factor')).toBe(4);
    expect(header.metadata.get('qwen2.rope.scaling.original_context_length')).toBe(4096);
    expect(header.metadata.get('qwen2.rope.freq_base')).toBe(10_000);
    expect(header.metadata.get('qwen2.context_length')).toBe(1024);
  });
});

describe('convertToGguf refuses', () => {
  it.each([
    [
      'another architecture',
      { 'config.json': { architectures: ['Qwen3ForCausalLM'] } },
      'MODEL_UNSUPPORTED',
      'is of "Qwen3ForCausalLM"; only Qwen2ForCausalLM is converted',
    ],
    [
      'a quantised model',
      { 'config.json': { quantization_config: {} } },
      'MODEL_UNSUPPORTED',
      'is of a quantised model',
    ],
    [
      'heads that do not divide',
      { 'config.json': { num_attention_heads: 5 } },
      'CHECKPOINT_INVALID',
      'has hidden_size 64, 5 heads and 2 key-value heads',
    ],
    [
      'other rotary positions',
      { 'config.json': { rope_parameters: { rope_type: 'llama3' } } },
      'MODEL_UNSUPPORTED',
      '"llama3"',
    ],
    ['a missing field', { 'config.json': { hidden_size: null } }, 'CHECKPOINT_INVALID', 'config.json hidden_size: '],
    [
      'words cut otherwise',
      { 'tokenizer.json': { pre_tokenizer: { type: 'Whitespace' } } },
      'MODEL_UNSUPPORTED',
      'does not cut words as Qwen2 does (pre_tokenizer "Whitespace")',
    ],
    [
      'tokens beyond the vocabulary',
      { 'tokenizer.json': { added_tokens: [{ id: 620, content: '<|x|>', special: true }] } },
      'CHECKPOINT_INVALID',
      'has token "<|x|>" with id 620, config.json\'s vocab_size is 620',
    ],
    [
      'an id with two tokens',
      { 'tokenizer.json': { added_tokens: [{ id: 0, content: '<|x|>', special: true }] } },
      'CHECKPOINT_INVALID',
      'has two tokens with id 0, "!" and "<|x|>"',
    ],
    [
      'spare and mis-shaped tensors together',
      { 'config.json': { num_hidden_layers: 1, intermediate_size: 128 } },
      'CHECKPOINT_INVALID',
      `is not the Qwen2 of its config.json:
  - model.layers.0.mlp.gate_proj.weight is [160,64], config.json makes it [128,64]
  - model.layers.0.mlp.up_proj.weight is [160,64], config.json makes it [128,64]
  - model.layers.0.mlp.down_proj.weight is [64,160], config.json makes it [64,128]
  - model.layers.1.self_attn.q_proj.weight is not Qwen2's
`,
    ],
  ])('%s', async (_, changes, reason, message) => {
    const { folder, cacheFolder } = await tiny(changes);
    const error: unknown = await convertToGguf(folder, { cacheFolder }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ reason });
    expect(String(error)).toContain(message);
    await expect(readdir(cacheFolder)).rejects.toThrow('ENOENT');
  });

  it('a value that the type cannot hold, and leaves nothing', async () => {
    const { folder, cacheFolder } = await tiny();
    const path = join(folder, 'model.safetensors');
    const { offset = 0 } = (await readSafetensors(path)).tensors.get('lm_head.weight') ?? {};
    const bytes = await readFile(path);
    bytes.writeUInt16LE(0x7fc0, offset);
    await writeFile(path, bytes);
    await expect(convertToGguf(folder, { cacheFolder })).rejects.toThrow(
      'tensor "lm_head.weight" holds NaN, which is no weight',
    );
    expect(await readdir(cacheFolder)).toEqual([]);
  });

  it('a folder without weights, and one that holds something else', async () => {
    const { folder, cacheFolder } = await tiny();
    await writeFile(join(folder, 'model.safetensors'), safetensorsBytes({}));
    await expect(convertToGguf(folder, { cacheFolder })).rejects.toThrow('model.embed_tokens.weight is missing');
    await rm(join(folder, 'model.safetensors'));
    await expect(convertToGguf(folder, { cacheFolder })).rejects.toThrow(
      'has no model.safetensors and no index of shards',
    );
  });
});

describe('readQwenGguf', () => {
  it('takes what is converted, and refuses another architecture, a lack of metadata and a truncated file', async () => {
    const { conversion } = await convertTiny();
    const { path } = conversion;
    expect((await readQwenGguf(path)).tensors.size).toBe(27);
    const bytes = await readFile(path);
    const change = (from: string, to: string) =>
      writeFile(path, Buffer.from(bytes.toString('latin1').replace(from, to), 'latin1'));
    await change('qwen2', 'llama');
    await expect(readQwenGguf(path)).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: `${path} is of architecture "llama"; give a Qwen2 or Qwen2.5 ("qwen2")`,
    });
    await change('qwen2.block_count', 'qwen2.block_colour'.slice(0, 17));
    await expect(readQwenGguf(path)).rejects.toThrow(`${path} has no qwen2.block_count; convert the model again`);
    await writeFile(path, bytes.subarray(0, bytes.length - 64));
    await expect(readQwenGguf(path)).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringContaining('is truncated: tensor') as string,
    });
  });
});

describe('the cache', () => {
  it('is used again, per type, and tells progress to the last byte', async () => {
    const { folder, cacheFolder } = await tiny();
    const seen: ConversionProgress[] = [];
    const onProgress = (progress: ConversionProgress) => seen.push(progress);
    const first = await convertToGguf(folder, { cacheFolder, onProgress });
    expect(first.isReused).toBe(false);
    expect(seen.at(-1)).toEqual({ bytesDone: first.bytes, bytesTotal: first.bytes });
    expect(seen.map(({ bytesDone }) => bytesDone)).toEqual(
      [...seen.map(({ bytesDone }) => bytesDone)].sort((a, b) => a - b),
    );
    expect(await convertToGguf(folder, { cacheFolder })).toEqual({ ...first, isReused: true });
    const other = await convertToGguf(folder, { cacheFolder, type: 'f16' });
    expect(other.path).not.toBe(first.path);
    expect(await readdir(cacheFolder)).toHaveLength(2);
  });

  it.each([
    ['weights written again', (folder: string) => utimes(join(folder, 'model.safetensors'), 1, 1)],
    ['another configuration', (folder: string) => appendFile(join(folder, 'config.json'), '\n')],
    ['a new chat template', (folder: string) => writeFile(join(folder, 'chat_template.jinja'), '{{ messages }}')],
  ])('notices %s', async (_, change) => {
    const { folder, cacheFolder } = await tiny();
    const first = await convertToGguf(folder, { cacheFolder });
    await change(folder);
    const second = await convertToGguf(folder, { cacheFolder });
    expect(second.isReused).toBe(false);
    expect(second.path).not.toBe(first.path);
  });

  it('replaces a file that is not whole', async () => {
    const { folder, cacheFolder } = await tiny();
    const first = await convertToGguf(folder, { cacheFolder });
    const whole = await readFile(first.path);
    await writeFile(first.path, whole.subarray(0, whole.length - 1));
    expect((await convertToGguf(folder, { cacheFolder })).isReused).toBe(false);
    expect((await readFile(first.path)).equals(whole)).toBe(true);
  });

  it('converts once for many that ask at the same time', async () => {
    const { folder, cacheFolder } = await tiny();
    const all = await Promise.all(Array.from({ length: 8 }, () => convertToGguf(folder, { cacheFolder })));
    expect(new Set(all.map(({ path }) => path)).size).toBe(1);
    expect(all.some(({ isReused }) => !isReused)).toBe(true);
    expect(await readdir(cacheFolder)).toHaveLength(1);
    await readGgufHeader(all[0]?.path ?? '');
  });

  it('waits for a conversion that goes on, and replaces one that stands still', async () => {
    const { folder, cacheFolder } = await tiny();
    const { path } = await convertToGguf(folder, { cacheFolder });
    const whole = await readFile(path);
    const part = `${path}.0.part`;
    await writeFile(part, whole);
    await rm(path);
    const { isReused } = await convertToGguf(folder, { cacheFolder, staleMs: 600 });
    expect(isReused).toBe(false);
    expect(await readdir(cacheFolder)).toHaveLength(1);
    await writeFile(part, '');
    await rm(path);
    const waiting = convertToGguf(folder, { cacheFolder, staleMs: 60_000 });
    await appendFile(part, 'more');
    await writeFile(path, whole);
    await rm(part);
    expect((await waiting).isReused).toBe(true);
  });

  it('is left without a trace by an abort, which says so', async () => {
    const { folder, cacheFolder } = await tiny();
    const controller = new AbortController();
    const onProgress = ({ bytesDone }: ConversionProgress) => bytesDone > 50_000 && controller.abort();
    const converting = convertToGguf(folder, { cacheFolder, signal: controller.signal, onProgress });
    await expect(converting).rejects.toMatchObject({ reason: 'CANCELLED', message: 'the conversion was cancelled' });
    expect(await readdir(cacheFolder)).toEqual([]);
  });

  it('refuses sources that change meanwhile, and a folder that cannot be written', async () => {
    const { folder, cacheFolder } = await tiny();
    let done = false;
    const onProgress = () => {
      if (!done) void utimes(join(folder, 'model.safetensors'), 1, 1);
      done = true;
    };
    await expect(convertToGguf(folder, { cacheFolder, onProgress })).rejects.toThrow('changed while it was converted');
    expect(await readdir(cacheFolder)).toEqual([]);
    await expect(convertToGguf(folder, { cacheFolder: join(folder, 'config.json') })).rejects.toThrow(
      'cannot be written (EEXIST); name another folder',
    );
  });

  it('says in one sentence that the disk is full, and leaves nothing', async () => {
    const { folder, cacheFolder } = await tiny();
    await mkdir(cacheFolder);
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    const onProgress = ({ bytesDone }: ConversionProgress) => {
      if (bytesDone > 50_000) throw full;
    };
    await expect(convertToGguf(folder, { cacheFolder, onProgress })).rejects.toMatchObject({
      reason: 'OUT_OF_MEMORY',
      message: `${cacheFolder} has no room for 0.00 GB (ENOSPC); free some, name another folder or convert to a smaller type`,
    });
    expect(await readdir(cacheFolder)).toEqual([]);
  });

  it('writes the very file that is asked for, over one that is there', async () => {
    const { folder } = await tiny();
    const out = join(await tempFolder(), 'mine.gguf');
    await writeFile(out, 'old');
    expect(await convertToGguf(folder, { out, type: 'f32' })).toMatchObject({ path: out, isReused: false });
    expect((await readGgufHeader(out)).metadata.get('general.file_type')).toBe(0);
  });
});
