import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { KnownImages } from '../../../src/pipelines/pipeline.js';
import { openWanCheckpoint } from '../../../src/pipelines/wan/checkpoint/checkpoint.js';
import { readWanConfig } from '../../../src/pipelines/wan/checkpoint/read-config.js';
import { flowShiftOf } from '../../../src/pipelines/wan/flow-shift.js';
import { inspectWan } from '../../../src/pipelines/wan/inspect.js';
import { createWanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { rebuildModel } from '../../conformance/golden-folder.js';
import { rebuildOriginal } from '../../conformance/wan-cases.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { gradient } from '../../support/image.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, writeTensorFile } from '../../support/tensor-file.js';
import { goldens, TRANSFORMER, tinyVideo } from '../../support/tiny-wan.js';

const EYE = 'models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors';

const diffusers = async (name: string) => rebuildModel(goldens(name), join(await tempFolder(), name));
const original = async (name: string) => rebuildOriginal(goldens(name), await tempFolder());

describe('inspection distinguishes the models of WAN', () => {
  const start = ['start'] as const;
  const both = ['start', 'end'] as const;
  it.each([
    ['wan-tiny', 'text_to_video', { method: 'latent_hold', takes: both, needs: [] }],
    ['wan-vace-other', 'vace', { method: 'vace', takes: [...both, 'look'], needs: [], takesControlVideo: true }],
    ['wan-i2v-tiny', 'image_to_video', { method: 'image_conditioning', takes: start, needs: start }],
    ['wan-flf2v-tiny', 'image_to_video', { method: 'image_conditioning', takes: both, needs: both }],
    ['wan-ti2v-tiny', 'text_image_to_video', { method: 'clean_frames', takes: start, needs: [] }],
    ['wan-fun-inp-tiny', 'fun_inp', { method: 'image_conditioning', takes: both, needs: start }],
    [
      'wan-fun-control-tiny',
      'fun_control',
      { method: 'image_conditioning', takes: start, needs: [], takesControlVideo: true },
    ],
    [
      'wan-fun-control-ref-tiny',
      'fun_control',
      { method: 'image_conditioning', takes: ['start', 'look'], needs: [], takesControlVideo: true },
    ],
  ] as const)('%s: %s, in both layouts', async (name, variant, frames) => {
    for (const [layout, path] of [
      ['diffusers', await diffusers(name)],
      ['original', await original(name)],
    ] as const) {
      const inspection = await inspectWan({ path });
      expect([inspection.layout, inspection.variant]).toEqual([layout, variant]);
      expect(inspection.info.frames).toEqual(frames);
      expect(inspection.networks.image_encoder === undefined).toBe(frames.method !== 'image_conditioning');
    }
  });

  it('a model of 36 channels without an image encoder also takes a last frame', async () => {
    const { info, networks } = await inspectWan({ path: await diffusers('wan-i2v-plain-tiny') });
    expect(info.frames).toEqual({ method: 'image_conditioning', takes: both, needs: start });
    expect(networks.image_encoder).toBeUndefined();
  });
});

describe('the default shift of a video', () => {
  it.each([
    ['wan-tiny', 832, 480, 5],
    ['wan-tiny', 1280, 720, 5],
    ['wan-vace-other', 832, 480, 5],
    ['wan-i2v-tiny', 480, 832, 3],
    ['wan-i2v-tiny', 1280, 720, 5],
    ['wan-flf2v-tiny', 832, 480, 16],
    ['wan-ti2v-tiny', 832, 480, 5],
    ['wan-ti2v-tiny', 1280, 704, 5],
    ['wan-fun-inp-tiny', 832, 480, 3],
    ['wan-fun-control-tiny', 832, 480, 3],
    ['wan-fun-inp-tiny', 1280, 720, 5],
  ])('%s at %ix%i is %i', async (name, width, height, shift) => {
    const { transformer } = await readWanConfig(join(goldens(name), 'model-configs'));
    expect(flowShiftOf(transformer, { width, height })).toBe(shift);
  });
});

describe('the VAE of WAN 2.2', () => {
  it.each(['diffusers', 'original'] as const)('is read from the %s layout, whose sizes it decides', async (layout) => {
    const path = await { diffusers, original }[layout]('wan-ti2v-tiny');
    const { config } = await openWanCheckpoint({ path });
    const wanted = { base_dim: 4, decoder_base_dim: 8, z_dim: 48, patch_size: 2, in_channels: 12, is_residual: true };
    expect(config.vae).toMatchObject({ ...wanted, temperal_downsample: [false, true, true], dim_mult: [1, 2, 4, 4] });
    expect(config.vae.latents_mean.at(-1)).toBe(-0.0667);
    expect((await inspectWan({ path })).info).toMatchObject({
      sizeMultiple: 32,
      nativeWidth: 1280,
      nativeHeight: 704,
      clip: { frames: 121, fps: 24 },
    });
  });

  it('is refused where the transformer denoises the latents of another', async () => {
    const [path, vae] = [await diffusers('wan-ti2v-tiny'), join(await diffusers('wan-tiny'), 'vae')];
    await expect(openWanCheckpoint({ path, vae })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: `${path}: the VAE has 16 latent channels, the transformer 48; they belong to different models`,
    });
  });

  it('is asked for by its own name beside the original transformer', async () => {
    const folder = await original('wan-ti2v-tiny');
    await rm(join(folder, 'Wan2.2_VAE.safetensors'));
    await expect(openWanCheckpoint({ path: folder })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: `${folder} has no Wan2.2_VAE.pth (or Wan2.2_VAE.safetensors, wan2.2_vae.safetensors); give one with --wan-vae FILE`,
    });
  });

  it.each([
    [
      'colours that are not those of its patches',
      '"in_channels": 12',
      '"in_channels": 3',
      /in_channels 3 must be 12 with patches of 2 pixels$/,
    ],
    ['patches of no size', '"patch_size": 2', '"patch_size": 0', /patch_size/],
  ])('is refused with %s', async (_, from, to, message) => {
    const path = await diffusers('wan-ti2v-tiny');
    const file = join(path, 'vae', 'config.json');
    await writeFile(file, (await readFile(file, 'utf8')).replace(from, to));
    await expect(openWanCheckpoint({ path })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message),
    });
  });
});

describe('a video of a model with a timestep for each frame', () => {
  it('gives a clean first frame a timestep of 0, also where it reuses residuals', async () => {
    const pipeline = await createWanPipeline({ path: await diffusers('wan-ti2v-tiny'), backend: cpuBackend });
    try {
      const call = {
        latents: hashTensor('noise', [2, 48, 2, 4, 6]),
        size: { frames: 2, height: 4, width: 6 },
        timestep: 321,
        texts: [hashTensor('a', [7, 32]), hashTensor('b', [3, 32])],
        condition: { kind: 'clean', count: 1 },
      } as const;
      const { flow, kept } = await pipeline.networks.denoiser.predictAndKeep(call);
      const same = await pipeline.networks.denoiser.predictFrom(kept, call);
      expect(Math.max(...same.map((x, i) => Math.abs(x - (flow[i] ?? 9))))).toBeLessThan(1e-6);
      const other = await pipeline.networks.denoiser.predictFrom(kept, { ...call, condition: undefined });
      expect(Math.max(...other.map((x, i) => Math.abs(x - (flow[i] ?? 9))))).toBeGreaterThan(1e-3);
    } finally {
      await pipeline.dispose();
    }
  });
});

describe('a video of a model that takes a reference image', () => {
  it('is made with one and without, and may reuse residuals', async () => {
    const pipeline = await createWanPipeline({
      path: await diffusers('wan-fun-control-ref-tiny'),
      backend: cpuBackend,
    });
    try {
      const condition = {
        kind: 'image',
        channels: hashTensor('channels', [32, 2, 4, 6]),
        images: hashTensor('images', [5, 64]),
      } as const;
      const call = {
        latents: hashTensor('noise', [2, 16, 2, 4, 6]),
        size: { frames: 2, height: 4, width: 6 },
        timestep: 321,
        texts: [hashTensor('a', [7, 32]), hashTensor('b', [3, 32])],
        condition: { ...condition, reference: hashTensor('reference', [16, 4, 6]) },
      };
      const { denoiser } = pipeline.networks;
      const { flow, kept } = await denoiser.predictAndKeep(call);
      expect(flow).toHaveLength(call.latents.length);
      const distance = (other: Float32Array) => Math.max(...other.map((x, i) => Math.abs(x - (flow[i] ?? 9))));
      expect(distance(await denoiser.predictFrom(kept, call))).toBeLessThan(1e-6);
      expect(distance(await denoiser.predict({ ...call, oneByOne: true }))).toBeLessThan(1e-5);
      expect(distance(await denoiser.predict({ ...call, condition }))).toBeGreaterThan(1e-3);
    } finally {
      await pipeline.dispose();
    }
  });

  it('is none of a model of other input channels', async () => {
    const path = await diffusers('wan-i2v-tiny');
    const file = join(path, 'transformer', 'config.json');
    await writeFile(
      file,
      (await readFile(file, 'utf8')).replace('"in_channels"', '"add_ref_conv": true, "in_channels"'),
    );
    await expect(openWanCheckpoint({ path })).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: expect.stringMatching(/describes a model of 36 input channels that takes a reference image; /),
    });
  });
});

describe('an image encoder', () => {
  it('is found beside the original transformer, or given', async () => {
    const folder = await original('wan-i2v-tiny');
    const eye = join(await tempFolder(), 'clip_vision.safetensors');
    await rename(join(folder, EYE), eye);
    await expect(openWanCheckpoint({ path: folder })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: `${folder} has no models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth (or ${EYE}, clip_vision_h.safetensors); give one with --wan-image-encoder FILE`,
    });
    const { config } = await openWanCheckpoint({ path: folder, imageEncoder: eye });
    expect(config.imageEncoder).toMatchObject({
      hidden_size: 64,
      image_size: 28,
      patch_size: 14,
      num_hidden_layers: 3,
    });
  });

  it('of one layout works with the other', async () => {
    const [ours, theirs] = [await diffusers('wan-i2v-tiny'), await original('wan-i2v-tiny')];
    const inspection = await inspectWan({ path: ours, imageEncoder: join(theirs, EYE) });
    expect(inspection.networks.image_encoder?.files).toEqual([join(theirs, EYE)]);
    expect(await inspectWan({ path: theirs, imageEncoder: join(ours, 'image_encoder') })).toMatchObject({
      networks: { image_encoder: { files: [join(ours, 'image_encoder', 'model.safetensors')] } },
    });
  });

  const config = (file: string, from: RegExp, to: string) => async (folder: string) => {
    const path = join(folder, file);
    const text = await readFile(path, 'utf8');
    expect(text).toMatch(from);
    await writeFile(path, text.replace(from, to));
  };
  it.each([
    [
      'that the transformer does not look at',
      config('image_encoder/config.json', /"hidden_size": 64/, '"hidden_size": 80'),
      /the image encoder is 80 wide, the transformer takes images 64 wide; they belong to different models$/,
    ],
    [
      'of more tokens than it has places for',
      config('image_encoder/config.json', /"patch_size": 14/, '"patch_size": 7'),
      /the image encoder makes 17 tokens of an image, the transformer takes 10 of two; they belong to different models$/,
    ],
    [
      'whose images are made ready for another',
      config('image_processor/preprocessor_config.json', /"height": 28/, '"height": 224'),
      /preprocessor_config\.json makes images 224 pixels high or wide, the image encoder takes 28$/,
    ],
    [
      'that is not there',
      (folder: string) => rm(join(folder, 'image_encoder', 'config.json')),
      /image_encoder\/config\.json/,
    ],
  ] as const)('is refused: one %s', async (_, breakIt, message) => {
    const path = await diffusers('wan-flf2v-tiny');
    await breakIt(path);
    await expect(openWanCheckpoint({ path })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message),
    });
  });

  it('may be in a file with unused query norms, which the first converters stored', async () => {
    const path = await diffusers('wan-i2v-tiny');
    const tensors = await readTensorFile(join(path, TRANSFORMER));
    const norm = tensors.get('blocks.0.attn2.norm_added_k.weight');
    if (norm === undefined) throw new Error('the fixture has no norm_added_k');
    await writeTensorFile(join(path, TRANSFORMER), tensors.set('blocks.0.attn2.norm_added_q.weight', norm));
    expect((await inspectWan({ path })).info.unused).toEqual([]);
  });
});

describe('a video of an image-to-video model', () => {
  const request = tinyVideo;
  const size = { width: request.width, height: request.height };

  it('needs its first frame, stops when cancelled, and may reuse residuals', async () => {
    const path = await diffusers('wan-i2v-tiny');
    const pipeline = await createWanPipeline({ path, backend: cpuBackend });
    const known: KnownImages = { method: 'image_conditioning', start: gradient(size), strength: 1 };
    const run = async (video: object, abort = new AbortController()) => {
      const seen: string[] = [];
      const job = { request: { ...request, video: { frames: 81, shift: 5, ...video } }, signal: abort.signal };
      for await (const event of pipeline.generate([job])) {
        seen.push(event.kind);
        if (event.kind === 'prompt') abort.abort();
      }
      return seen;
    };
    try {
      await expect(run({}, new AbortController())).rejects.toMatchObject({
        reason: 'REFERENCE_NEEDED',
        message: 'the model makes videos of known frames; give a start reference',
      });
      // Told of the prompt; then 21 runs of the encoder are to come.
      expect((await run({ known })).slice(-2)).toEqual(['prompt', 'aborted']);
      const call = {
        latents: hashTensor('noise', [2, 16, 2, 4, 6]),
        size: { frames: 2, height: 4, width: 6 },
        timestep: 321,
        texts: [hashTensor('a', [7, 32]), hashTensor('b', [3, 32])],
        condition: {
          kind: 'image',
          channels: hashTensor('channels', [20, 2, 4, 6]),
          images: hashTensor('images', [5, 64]),
        },
      } as const;
      const { flow, kept } = await pipeline.networks.denoiser.predictAndKeep(call);
      const same = await pipeline.networks.denoiser.predictFrom(kept, call);
      expect(Math.max(...same.map((x, i) => Math.abs(x - (flow[i] ?? 9))))).toBeLessThan(1e-6);
    } finally {
      await pipeline.dispose();
    }
  });
});
