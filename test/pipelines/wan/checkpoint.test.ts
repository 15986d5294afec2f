import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { planarFrames } from '../../../src/pipelines/common/frame-form.js';
import { openWanCheckpoint, type WanSource } from '../../../src/pipelines/wan/checkpoint/checkpoint.js';
import { readWanConfig } from '../../../src/pipelines/wan/checkpoint/read-config.js';
import { inspectWan } from '../../../src/pipelines/wan/inspect.js';
import { loadWanNetworks } from '../../../src/pipelines/wan/networks.js';
import { buildWanNetworks, planWanWeights } from '../../../src/pipelines/wan/weights.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, type StoredTensor, writeTensorFile } from '../../support/tensor-file.js';
import { sharedTinyWan, TRANSFORMER, VAE, wanGoldens, writeTinyWan } from '../../support/tiny-wan.js';

let tiny: string;
beforeAll(async () => {
  const shared = await sharedTinyWan('BF16');
  tiny = shared.path;
  return shared.remove;
});

async function copyOfTiny(): Promise<string> {
  const folder = join(await tempFolder(), 'wan');
  await cp(tiny, folder, { recursive: true });
  return folder;
}

/** The velocity and the last decoded frame of one small video. */
async function outputsOf(source: WanSource): Promise<{ flow: Float32Array; frame: Float32Array }> {
  const networks = await loadWanNetworks({ ...source, backend: cpuBackend });
  try {
    const size = { frames: 5, height: 16, width: 32 };
    const latents = hashTensor('latents', [1, 16, 2, 2, 4]);
    const texts = [hashTensor('text', [3, 32])];
    const flow = await networks.denoiser.predict({
      latents,
      size: networks.autoencoder.latentSize(size),
      timestep: 700,
      texts,
    });
    let frame = new Float32Array();
    for await (const { frames } of networks.autoencoder.decodeChunks(planarFrames, latents, size))
      frame = Float32Array.from(frames.at(-1) ?? []);
    return { flow, frame };
  } finally {
    await networks.release();
  }
}

function worst(a: Float32Array, b: Float32Array): number {
  expect(a).toHaveLength(b.length);
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))));
}

describe('a WAN folder', () => {
  it('asks for the names and shapes of the reference', async () => {
    const manifest = JSON.parse(await readFile(join(wanGoldens, 'manifest.json'), 'utf8')) as Record<
      string,
      { tensors: [string, number[]][] }
    >;
    const plan = planWanWeights(await readWanConfig(join(wanGoldens, 'model-configs')));
    const lines = (tensors: readonly (readonly [string, readonly number[]])[] = []) =>
      tensors.map(([name, shape]) => `${name} ${shape}`).sort();
    expect(lines(plan.transformer)).toEqual(lines(manifest[TRANSFORMER]?.tensors));
    expect(lines(plan.vae)).toEqual(lines(manifest[VAE]?.tensors));
  });

  it('computes the same from shards', async () => {
    const expected = await outputsOf({ path: tiny });
    const folder = await copyOfTiny();
    const tensors = [...(await readTensorFile(join(folder, TRANSFORMER)))];
    const weightMap: Record<string, string> = {};
    for (const half of [0, 1]) {
      const file = `diffusion_pytorch_model-0000${half + 1}-of-00002.safetensors`;
      const shard = tensors.filter((_, i) => i % 2 === half);
      await writeTensorFile(join(folder, 'transformer', file), new Map(shard));
      for (const [name] of shard) weightMap[name] = file;
    }
    await rm(join(folder, TRANSFORMER));
    await writeFile(join(folder, `${TRANSFORMER}.index.json`), JSON.stringify({ weight_map: weightMap }));
    expect(await outputsOf({ path: folder })).toEqual(expected);
  });

  it('works in F16, BF16 and F32', async () => {
    const folder = await tempFolder();
    const f32 = await outputsOf({ path: await writeTinyWan(join(folder, 'f32'), 'F32') });
    const f16 = await outputsOf({ path: await writeTinyWan(join(folder, 'f16'), 'F16') });
    const bf16 = await outputsOf({ path: tiny });
    // The same weights, rounded to 24, 11 and 8 bits.
    expect(worst(f32.flow, f16.flow)).toBeGreaterThan(0);
    expect(worst(f32.flow, f16.flow)).toBeLessThan(0.02);
    expect(worst(f32.flow, bf16.flow)).toBeLessThan(0.2);
    expect(worst(f32.frame, f16.frame)).toBeLessThan(0.02);
    expect(worst(f32.frame, bf16.frame)).toBeLessThan(0.2);
  });

  it('accepts a separate VAE', async () => {
    const vae = join(await copyOfTiny(), 'vae');
    const { tensors } = await openWanCheckpoint({ path: tiny, vae }).then((found) => found.readWeights('vae'));
    expect([...tensors.values()][0]?.file).toBe(join(vae, basename(VAE)));
  });

  it('is not called whole without its tokenizer', async () => {
    const folder = await copyOfTiny();
    await rm(join(folder, 'tokenizer'), { recursive: true });
    await expect(inspectWan({ path: folder })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: `${join(folder, 'tokenizer')} has neither tokenizer.json nor spiece.model`,
    });
  });

  it('lists missing, mis-shaped and wrongly typed tensors of all networks together, each once', async () => {
    const folder = await copyOfTiny();
    const tensors = await readTensorFile(join(folder, TRANSFORMER));
    const take = (name: string): StoredTensor => {
      const tensor = tensors.get(name);
      if (tensor === undefined) throw new Error(`the fixture has no ${name}`);
      tensors.delete(name);
      return tensor;
    };
    tensors.set('blocks.0.extra', take('blocks.0.attn1.norm_q.weight'));
    tensors.set('proj_out.bias', { ...take('proj_out.bias'), shape: [8, 8] });
    tensors.set('blocks.1.norm2.bias', { ...take('blocks.1.norm2.bias'), dtype: 'I16' });
    await writeTensorFile(join(folder, TRANSFORMER), tensors);
    const vae = await readTensorFile(join(folder, VAE));
    vae.delete('decoder.up_blocks.0.upsamplers.0.time_conv.bias');
    vae.delete('decoder.conv_in.bias');
    await writeTensorFile(join(folder, VAE), vae);
    const error = await openWanCheckpoint({ path: folder })
      .then((checkpoint) => buildWanNetworks(checkpoint, cpuBackend.dialectsOf))
      .catch((caught: unknown) => caught);
    expect(error).toMatchObject({ reason: 'CHECKPOINT_INVALID' });
    expect(String(error).split('\n').slice(1)).toEqual([
      '  - transformer: missing: blocks.0.attn1.norm_q.weight [48]',
      '  - transformer: wrong type: blocks.1.norm2.bias is I16, must be one of F32, F16, BF16, F8_E4M3, F8_E5M2',
      '  - transformer: mis-shaped: proj_out.bias is [8, 8], must be [64]',
      '  - vae: missing: decoder.conv_in.bias [32]',
      '  - vae: missing: decoder.up_blocks.0.upsamplers.0.time_conv.bias [64]',
    ]);
  });

  const config = (file: string, from: RegExp, to: string) => async (folder: string) => {
    const path = join(folder, file);
    const text = await readFile(path, 'utf8');
    expect(text).toMatch(from);
    await writeFile(path, text.replace(from, to));
  };
  type Refused = [string, (folder: string) => Promise<void>, string, RegExp];
  const refused: readonly Refused[] = [
    [
      'a pipeline of another kind',
      config('model_index.json', /WanPipeline/, 'WanAnimatePipeline'),
      'MODEL_UNSUPPORTED',
      /model_index\.json describes a WanAnimatePipeline; darkroom serves text-to-video, VACE, image-to-video, Fun-InP and Fun-Control models of WAN 2\.1, and WAN 2\.2 5B$/,
    ],
    [
      'the two transformers of WAN 2.2',
      config(
        'model_index.json',
        /"transformer_2": \[\s*null,\s*null/,
        '"transformer_2": ["diffusers", "WanTransformer3DModel"',
      ),
      'MODEL_UNSUPPORTED',
      /model_index\.json describes a WAN 2\.2 model \(two transformers\);/,
    ],
    [
      'a transformer of another kind',
      config('transformer/config.json', /WanTransformer3DModel/, 'WanAnimateTransformer3DModel'),
      'MODEL_UNSUPPORTED',
      /transformer\/config\.json describes a WanAnimateTransformer3DModel;/,
    ],
    [
      'a Fun-Control model without an image encoder',
      config('transformer/config.json', /"in_channels": 16/, '"in_channels": 48'),
      'MODEL_UNSUPPORTED',
      /transformer\/config\.json describes a Fun-Control model that takes no images;/,
    ],
    [
      'a transformer with an unknown number of input channels',
      config('transformer/config.json', /"in_channels": 16/, '"in_channels": 52'),
      'MODEL_UNSUPPORTED',
      /transformer\/config\.json describes a model of 52 input channels;/,
    ],
    [
      'VACE layers that are none',
      config(
        'transformer/config.json',
        /"WanTransformer3DModel"/,
        '"WanVACETransformer3DModel", "vace_layers": [0, 2]',
      ),
      'CHECKPOINT_INVALID',
      /transformer\/config\.json: vace_layers 0, 2 must begin with 0, ascend and be below the number of layers, 2$/,
    ],
    [
      'a control of channels that mean nothing here',
      config(
        'transformer/config.json',
        /"WanTransformer3DModel"/,
        '"WanVACETransformer3DModel", "vace_layers": [0, 1], "vace_in_channels": 97',
      ),
      'CHECKPOINT_INVALID',
      /transformer\/config\.json: vace_in_channels 97 must be 96: two latents and the mask of a patch of pixels$/,
    ],
    [
      'another pipeline',
      config('model_index.json', /WanPipeline/, 'FluxPipeline'),
      'CHECKPOINT_INVALID',
      /describes a FluxPipeline, darkroom needs a WanPipeline$/,
    ],
    [
      'patches of another size',
      config('transformer/config.json', /"patch_size": \[\s*1,\s*2,\s*2\s*\]/, '"patch_size": [1, 4, 4]'),
      'CHECKPOINT_INVALID',
      /transformer\/config\.json patch_size\.1: must be 2/,
    ],
    ...(
      [
        ['transformer', 'num_layers'],
        ['vae', 'num_res_blocks'],
        ['text_encoder', 'num_layers'],
      ] as const
    ).map(([part, field]): Refused => {
      const more = config(`${part}/config.json`, new RegExp(`"${field}": \\d+`), `"${field}": 257`);
      const message = new RegExp(`${part}/config\\.json ${field}: must be <= 256`);
      return [`more layers than a model may have: ${part}`, more, 'CHECKPOINT_INVALID', message];
    }),
    [
      'shortcuts that no channels fit',
      config(
        'vae/config.json',
        /"dim_mult": \[\s*1,\s*2,([\s\S]*)"is_residual": false/,
        '"dim_mult": [1, 3,$1"is_residual": true',
      ),
      'CHECKPOINT_INVALID',
      /vae\/config\.json: dim_mult 1, 3, 4, 4 has no shortcut from 1 to 3 in the encoder$/,
    ],
    [
      'statistics of too few channels',
      config('vae/config.json', /"z_dim": 16/, '"z_dim": 17'),
      'CHECKPOINT_INVALID',
      /vae\/config\.json: latents_mean has 16 entries, must have 17/,
    ],
    [
      'a folder without model_index.json and without weights of its own',
      (folder) => rm(join(folder, 'model_index.json')),
      'CHECKPOINT_INVALID',
      /wan has no diffusion_pytorch_model\.safetensors and no index of shards/,
    ],
  ];
  it.each(refused)('is refused: %s', async (_, breakIt, reason, message) => {
    const folder = await copyOfTiny();
    await breakIt(folder);
    await expect(openWanCheckpoint({ path: folder })).rejects.toMatchObject({
      reason,
      message: expect.stringMatching(message),
    });
  });
});
