import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildNetworks } from '../../../src/pipelines/common/build-networks.js';
import { NetworkOpener } from '../../../src/pipelines/common/network-opener.js';
import { openWanCheckpoint, type WanCheckpoint } from '../../../src/pipelines/wan/checkpoint/checkpoint.js';
import {
  relativePositionBucket,
  relativePositionBuckets,
} from '../../../src/pipelines/wan/model/relative-positions.js';
import { openPromptEncoder, type PromptEncoder } from '../../../src/pipelines/wan/prompt/prompt-encoder.js';
import { wanTable } from '../../../src/pipelines/wan/weights.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { bytesFromFloats } from '../../../src/weights/half-floats.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { safetensorsBytes } from '../../support/safetensors-bytes.js';
import { tempFolder } from '../../support/temp-folder.js';
import { wanGoldens } from '../../support/tiny-wan.js';

const LAYER: readonly (readonly [string, readonly number[]])[] = [
  ...['q', 'k', 'v', 'o'].map((name) => [`layer.0.SelfAttention.${name}.weight`, [32, 32]] as const),
  ['layer.0.SelfAttention.relative_attention_bias.weight', [32, 4]],
  ['layer.0.layer_norm.weight', [32]],
  ['layer.1.DenseReluDense.wi_0.weight', [64, 32]],
  ['layer.1.DenseReluDense.wi_1.weight', [64, 32]],
  ['layer.1.DenseReluDense.wo.weight', [32, 64]],
  ['layer.1.layer_norm.weight', [32]],
];
const TENSORS: readonly (readonly [string, readonly number[]])[] = [
  ['shared.weight', [449, 32]],
  ...[0, 1].flatMap((i) => LAYER.map(([name, shape]) => [`encoder.block.${i}.${name}`, shape] as const)),
  ['encoder.final_layer_norm.weight', [32]],
];

interface Changes {
  readonly dtype?: 'F32' | 'F16' | 'BF16';
  readonly factor?: (name: string) => number;
  readonly rename?: (name: string) => string | undefined;
  /** Stored among the weights, as ComfyUI does; there is no tokenizer beside them then. */
  readonly tokenizer?: Uint8Array;
}

/** The tiny text encoder of hash weights, written with changes, in a diffusers folder. */
async function checkpointOf({ dtype = 'F32', factor = () => 1, rename = (name) => name, tokenizer }: Changes = {}) {
  const path = await tempFolder();
  await cp(join(wanGoldens, 'model-configs'), path, { recursive: true });
  await mkdir(join(path, 'text_encoder'), { recursive: true });
  const header: Record<string, unknown> = {};
  const data: Uint8Array[] = [];
  let end = 0;
  for (const [key, shape] of TENSORS) {
    const name = rename(key);
    if (name === undefined) continue;
    const bytes = bytesFromFloats(
      dtype,
      hashTensor(`a:text_encoder.${key}`, shape).map((value) => value * factor(key)),
    );
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    data.push(bytes);
    end += bytes.length;
  }
  if (tokenizer !== undefined) {
    header.spiece_model = { dtype: 'U8', shape: [tokenizer.length], data_offsets: [end, end + tokenizer.length] };
    data.push(tokenizer);
    await rm(join(path, 'tokenizer'), { recursive: true });
  }
  await writeFile(join(path, 'text_encoder', 'model.safetensors'), safetensorsBytes(header, Buffer.concat(data)));
  return openWanCheckpoint({ path });
}

/** The checkpoint has no other network. */
async function buildTextEncoder(checkpoint: WanCheckpoint) {
  const { text_encoder } = wanTable(checkpoint.config);
  return buildNetworks(checkpoint, { model: 'WAN', table: { text_encoder }, dialectsOf: cpuBackend.dialectsOf });
}

async function openEncoder(checkpoint: WanCheckpoint): Promise<PromptEncoder> {
  const { text_encoder } = await buildTextEncoder(checkpoint);
  return openPromptEncoder(checkpoint, text_encoder, new NetworkOpener(cpuBackend, [text_encoder]));
}

async function encode(checkpoint: WanCheckpoint, prompt: string): Promise<Float32Array> {
  const encoder = await openEncoder(checkpoint);
  try {
    return (await encoder.encode(prompt)).states;
  } finally {
    await encoder.release();
  }
}

describe('the text encoder', () => {
  it('returns one row for each token, 512 at most', async () => {
    const encoder = await openEncoder(await checkpointOf());
    const short = await encoder.encode('a red circle');
    expect(short.states).toHaveLength(short.ids.length * 32);
    const long = await encoder.encode('red '.repeat(600));
    expect(long.states).toHaveLength(512 * 32);
    expect(long).toMatchObject({ length: 601 });
    expect(long.states.every(Number.isFinite)).toBe(true);
    await encoder.release();
  });

  it('stays finite where the residual stream outgrows half precision, even from weights stored in it', async () => {
    const factor = (name: string) => (name.endsWith('wo.weight') ? 300_000 : 1);
    const states = await encode(await checkpointOf({ dtype: 'F16', factor }), 'a red circle moving left');
    expect(states.every(Number.isFinite)).toBe(true);
    // What is left after the last norm is of the size of one, as for any input.
    expect(Math.max(...states.map(Math.abs))).toBeGreaterThan(0.5);
  });

  it.each(['F16', 'BF16'] as const)(
    'reads weights stored in %s as they are, the table of embeddings too',
    async (dtype) => {
      const full = await encode(await checkpointOf(), 'a red circle');
      const half = await encode(await checkpointOf({ dtype }), 'a red circle');
      const error = Math.max(...half.map((value, i) => Math.abs(value - (full[i] ?? 9))));
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(0.1);
    },
  );

  it('accepts the embeddings under their second name', async () => {
    const rename = (name: string) => name.replace(/^shared\./, 'encoder.embed_tokens.');
    expect(await encode(await checkpointOf({ rename }), 'a red circle')).toEqual(
      await encode(await checkpointOf(), 'a red circle'),
    );
  });

  it('reads the tokenizer from the weights file where there is none beside it', async () => {
    const tokenizer = await readFile(join(wanGoldens, 'model-configs', 'tokenizer', 'spiece.model'));
    expect(await encode(await checkpointOf({ tokenizer }), 'a red circle')).toEqual(
      await encode(await checkpointOf(), 'a red circle'),
    );
    const broken = await checkpointOf({ tokenizer: tokenizer.subarray(0, 99) });
    await expect(encode(broken, 'a red circle')).rejects.toThrow(
      /model\.safetensors has a tokenizer that is no SentencePiece model: /,
    );
  });

  it('lists missing tensors', async () => {
    const rename = (name: string) =>
      name.endsWith('wi_1.weight') ? undefined : name.replace('final_layer', 'last_layer');
    const checkpoint = await checkpointOf({ rename });
    await expect(buildTextEncoder(checkpoint)).rejects.toThrow(
      [
        '  - text_encoder: missing: encoder.block.0.layer.1.DenseReluDense.wi_1.weight [64, 32]',
        '  - text_encoder: missing: encoder.block.1.layer.1.DenseReluDense.wi_1.weight [64, 32]',
        '  - text_encoder: missing: encoder.final_layer_norm.weight [32]',
      ].join('\n'),
    );
  });

  it('refuses a tokenizer of another model', async () => {
    const checkpoint = await checkpointOf();
    const small = { ...checkpoint.config.textEncoder, vocab_size: 259 };
    const tensors = new Map([...(await checkpoint.readWeights('text_encoder')).tensors]);
    const table = tensors.get('shared.weight');
    if (table === undefined) throw new Error('no table');
    tensors.set('shared.weight', { ...table, shape: [259, 32], length: 259 * 32 * 4 });
    const cut: WanCheckpoint = {
      ...checkpoint,
      config: { ...checkpoint.config, textEncoder: small },
      readWeights: async () => ({ path: 'cut', tensors, metadata: {} }),
    };
    await expect(encode(cut, 'a red circle')).rejects.toThrow(
      'the tokenizer has a token 259, the text encoder knows 259: they belong to different models',
    );
  });
});

describe('relative positions', () => {
  // torch 2.13 over transformers 5.18's _relative_position_bucket(arange(-511, 512)): bucket and how many distances it has.
  const runs: readonly (readonly [number, number])[] = [
    ...[
      [15, 421],
      [14, 27],
      [13, 18],
      [12, 14],
      [11, 9],
      [10, 7],
      [9, 4],
      [8, 4],
    ].map(([a = 0, b = 0]) => [a, b] as const),
    ...[7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23].map((bucket) => [bucket, 1] as const),
    ...[
      [24, 4],
      [25, 4],
      [26, 7],
      [27, 9],
      [28, 14],
      [29, 18],
      [30, 27],
      [31, 421],
    ].map(([a = 0, b = 0]) => [a, b] as const),
  ];

  it('fall into the buckets that torch computes, also on the edges', () => {
    const expected = runs.flatMap(([bucket, count]) => new Array<number>(count).fill(bucket));
    const actual = Array.from({ length: 1023 }, (_, i) => relativePositionBucket(i - 511, 32, 128));
    expect(actual).toEqual(expected);
  });

  it('have one row for each attending token', () => {
    expect([...relativePositionBuckets(3, 32, 128)]).toEqual([0, 17, 18, 1, 0, 17, 2, 1, 0]);
  });
});
