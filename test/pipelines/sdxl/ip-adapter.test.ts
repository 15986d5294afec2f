import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { defaultDialect } from '../../../src/graph/dialect.js';
import type { RequestImagePrompt } from '../../../src/pipelines/pipeline.js';
import { openSdxlCheckpoint, type SdxlSource } from '../../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { inspectSdxl } from '../../../src/pipelines/sdxl/inspect.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { buildSdxlNetworks } from '../../../src/pipelines/sdxl/weights.js';
import { writeSyntheticControlNet } from '../../../src/synthetic/controlnet.js';
import { writeSyntheticImageEncoder, writeSyntheticIpAdapter } from '../../../src/synthetic/ip-adapter.js';
import { Expected } from '../../conformance/golden-folder.js';
import { difference } from '../../conformance/report.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { latentsOf } from '../../support/latents-of.js';
import { imagesOf, sdxlRequest as request } from '../../support/sdxl-requests.js';
import { readTensorFile, writeTensorFile } from '../../support/tensor-file.js';

const SIZE = 64;
const goldens = fileURLToPath(new URL('../../fixtures/goldens/ip-adapter/expected.safetensors', import.meta.url));
const lora = fileURLToPath(new URL('../../fixtures/goldens/sdxl-lora/attn.peft.safetensors', import.meta.url));

const pixels = (width: number, height: number, of: (x: number, y: number) => readonly number[]): Uint8Array =>
  Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return of(pixel % width, Math.floor(pixel / width))[i % 3] as number;
  });
// 97x53, so that preparing it resizes and crops.
const ramp = pixels(97, 53, (x, y) => [4 * x, 4 * y, 2 * (x + y)]);
const rings = pixels(SIZE, SIZE, (x, y) =>
  new Array<number>(3).fill((Math.floor(Math.hypot(x - 32, y - 32) / 6) % 2) * 255),
);

let folder: string;
let sources: Readonly<Record<'base' | 'plus', SdxlSource>>;
let pipelines: Readonly<Record<'base' | 'plus', SdxlPipeline>>;
let bare: SdxlPipeline;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  const encoder = join(folder, 'encoder');
  await writeSyntheticImageEncoder(encoder, 'clip-image-encoder-tiny');
  await writeSyntheticIpAdapter(join(folder, 'base.safetensors'), 'sdxl-ip-adapter-tiny');
  await writeSyntheticIpAdapter(join(folder, 'plus.safetensors'), 'sdxl-ip-adapter-plus-tiny');
  const source = (kind: string) => ({
    path: inject('wholeSdxl'),
    ipAdapter: join(folder, `${kind}.safetensors`),
    ipAdapterEncoder: encoder,
  });
  sources = { base: source('base'), plus: source('plus') };
  pipelines = {
    base: await createSdxlPipeline({ ...sources.base, backend: cpuBackend }),
    plus: await createSdxlPipeline({ ...sources.plus, backend: cpuBackend }),
  };
  bare = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
});
afterAll(async () => {
  for (const pipeline of [pipelines.base, pipelines.plus, bare]) await pipeline.dispose();
  await rm(folder, { recursive: true });
});

const prompt = (scale: number, more: Partial<RequestImagePrompt> = {}): RequestImagePrompt => ({
  ...{ rgb: ramp, width: 97, height: 53, scale },
  ...more,
});
async function expectNear(key: string, values: Float32Array): Promise<void> {
  const { relative } = difference(values, (await Expected.read(goldens)).floats(key));
  console.log(`${key}: largest error ${relative.toExponential(1)}`);
  expect(relative).toBeLessThan(1e-5);
}

describe.each(['base', 'plus'] as const)('an IP-Adapter of the kind %s', (kind) => {
  it('makes the tokens of diffusers, of an image and of none', async () => {
    const encoded = await pipelines[kind].encodeImagePrompt({ imagePrompt: prompt(1) });
    await expectNear(`${kind}.tokens`, Float32Array.from([...(encoded?.none ?? []), ...(encoded?.tokens ?? [])]));
  });

  it('predicts the noise of diffusers', async () => {
    const expected = await Expected.read(goldens);
    const encoded = await pipelines[kind].encodeImagePrompt({ imagePrompt: prompt(1) });
    const ids = [SIZE, SIZE, 0, 0, SIZE, SIZE];
    const { noise } = await pipelines[kind].networks.denoiser.predictNoise({
      ...{ latents: expected.floats('latents'), height: 8, width: 8, timestep: 500 },
      ...{ context: expected.floats('text'), pooled: expected.floats('pooled'), timeIds: [ids, ids] },
      imageTokens: {
        tokens: Float32Array.from([...(encoded?.none ?? []), ...(encoded?.tokens ?? [])]),
        scales: Float32Array.of(0.6, 0.6),
      },
    });
    await expectNear(`${kind}.noise`, noise);
  });

  it.each([
    ['guided', { imagePrompt: prompt(0.6) }],
    ['unguided', { imagePrompt: prompt(0.6), guidanceScale: 1 }],
    ['full', { imagePrompt: prompt(1) }],
  ])('ends at the latents of diffusers: %s', async (key, more) => {
    await expectNear(`${kind}.${key}`, await latentsOf(pipelines[kind], request(more)));
  });

  it('draws in a batch what each image is alone, with another image, another scale and without one', async () => {
    const jobs = [
      request({ seeds: [3, 4], imagePrompt: prompt(0.6) }),
      request({ seeds: [5], imagePrompt: prompt(1, { rgb: rings, width: SIZE, height: SIZE }) }),
      request({ seeds: [6] }),
    ];
    const together = await imagesOf(pipelines[kind], ...jobs);
    const alone: Uint8Array[] = [];
    for (const job of jobs)
      for (const seed of job.seeds) alone.push(...(await imagesOf(pipelines[kind], { ...job, seeds: [seed] })));
    expect(together).toEqual(alone);
    // Without an image a model with an adapter draws what one without an adapter draws.
    expect(together[3]).toEqual((await imagesOf(bare, request({ seeds: [6] })))[0]);
    expect(together[0]).not.toEqual((await imagesOf(bare, request()))[0]);
  });
});

describe('a model with an IP-Adapter', () => {
  const control = () => ({
    ...{ name: 'rings', path: join(folder, 'control.safetensors'), revision: '1', parameters: 0 },
    ...{ rgb: rings, scale: 0.8, start: 0, end: 1 },
  });

  it('works with a ControlNet as in diffusers', async () => {
    await writeSyntheticControlNet(join(folder, 'control.safetensors'), 'sdxl-controlnet-tiny');
    const job = request({ imagePrompt: prompt(0.6), controls: [control()] });
    await expectNear('base.controlnet', await latentsOf(pipelines.base, job));
  });

  it('works with deep cache: steps in between keep what the image does', async () => {
    const image = { imagePrompt: prompt(1) };
    const whole = await latentsOf(pipelines.base, request({ ...image, steps: 8 }));
    const cached = await latentsOf(pipelines.base, request({ ...image, steps: 8, deepCacheInterval: 2 }));
    const without = await latentsOf(pipelines.base, request({ steps: 8 }));
    expect(difference(cached, whole).relative).toBeGreaterThan(0);
    expect(difference(cached, whole).relative).toBeLessThan(difference(without, whole).relative);
  });

  it('works with LoRAs, which share its image encoder', async () => {
    const job = request({ imagePrompt: prompt(1) });
    const variant = await pipelines.plus.withLoras([{ path: lora, weight: 1 }]);
    const images = await Promise.resolve([
      ...(await imagesOf(variant, job)),
      ...(await imagesOf(variant, request())),
      ...(await imagesOf(pipelines.plus, job)),
    ]).finally(() => variant.dispose());
    expect(new Set(images.map((rgb) => Buffer.from(rgb).toString('hex'))).size).toBe(3);
  });

  it('draws six images at once as six alone, with LoRA, ControlNet, mask and adapter together', async () => {
    await writeSyntheticControlNet(join(folder, 'control.safetensors'), 'sdxl-controlnet-tiny');
    const variant = await pipelines.base.withLoras([{ path: lora, weight: 1 }]);
    const mask = Uint8Array.from({ length: SIZE * SIZE }, (_, i) => (i % SIZE < SIZE / 2 ? 0 : 255));
    const jobs = [0.3, 0.6, 1].map((scale, i) =>
      request({
        seeds: [10 + i, 20 + i],
        init: { rgb: rings, mask, strength: 1 },
        imagePrompt: prompt(scale),
        controls: [control()],
      }),
    );
    try {
      const together = await imagesOf(variant, ...jobs);
      const alone: Uint8Array[] = [];
      for (const job of jobs)
        for (const seed of job.seeds) alone.push(...(await imagesOf(variant, { ...job, seeds: [seed] })));
      expect(together).toHaveLength(6);
      expect(together).toEqual(alone);
      expect(new Set(together.map((rgb) => Buffer.from(rgb).toString('hex'))).size).toBe(6);
    } finally {
      await variant.dispose();
    }
  });

  it('keeps the image in the second pass of an enlarged one', async () => {
    const upscale = { method: 'latent', factor: 1.5, width: 96, height: 96, strength: 0.5, steps: 4 } as const;
    const [one] = await imagesOf(pipelines.base, request({ upscale, imagePrompt: prompt(1) }));
    const [two] = await imagesOf(pipelines.base, request({ upscale, imagePrompt: prompt(0.1) }));
    expect(one).toHaveLength(96 * 96 * 3);
    expect(one).not.toEqual(two);
  });

  it('lists both networks, and says that it takes such images', async () => {
    const { info, networks } = await inspectSdxl(sources.plus);
    expect(info.takesImagePrompts).toBe(true);
    expect(info.unused).toEqual([]);
    expect(networks.image_encoder?.parameters).toBeGreaterThan(0);
    expect((await inspectSdxl({ path: inject('wholeSdxl') })).info.takesImagePrompts).toBeUndefined();
  });
});

describe('the image encoder of an IP-Adapter', () => {
  it('may be a file, whose shapes give all but its heads', async () => {
    const ipAdapterEncoder = join(folder, 'encoder', 'model.safetensors');
    const { config } = await openSdxlCheckpoint({ ...sources.base, ipAdapterEncoder });
    const fromFolder = (await openSdxlCheckpoint(sources.base)).config.imagePrompt?.encoder;
    expect(config.imagePrompt?.encoder).toEqual({ ...fromFolder, num_attention_heads: 16 });
  });
});

describe('a model without an IP-Adapter', () => {
  it('has no inputs, nodes or networks of one', async () => {
    const graphs = await buildSdxlNetworks(await openSdxlCheckpoint({ path: inject('wholeSdxl') }), () => [
      defaultDialect,
    ]);
    const { unet, image_encoder, image_projection } = graphs;
    expect([image_encoder, image_projection]).toEqual([undefined, undefined]);
    expect(unet.graph.inputs.map(({ name }) => name).filter((name) => name.startsWith('image'))).toEqual([]);
    expect([...unet.weights.wanted.keys()].filter((key) => key.includes('_ip'))).toEqual([]);
  });

  it('refuses an image', async () => {
    await expect(imagesOf(bare, request({ imagePrompt: prompt(1) }))).rejects.toThrow(
      'the model has no IP-Adapter, which an image prompt needs',
    );
  });
});

describe('an IP-Adapter is refused', () => {
  type Tensors = Awaited<ReturnType<typeof readTensorFile>>;
  const of = (...shape: number[]) => ({
    dtype: 'F16',
    shape,
    bytes: Buffer.alloc(2 * shape.reduce((a, b) => a * b, 1)),
  });
  const changed = async (from: string, change: (tensors: Tensors) => void) => {
    const tensors = await readTensorFile(from);
    change(tensors);
    const path = join(folder, 'changed.safetensors');
    await writeTensorFile(path, tensors);
    return path;
  };

  it.each<[string, (tensors: Tensors) => void, RegExp]>([
    [
      'that is none',
      (t) => [...t.keys()].filter((k) => k.startsWith('image_proj.')).map((k) => t.delete(k)),
      /changed\.safetensors is no IP-Adapter: it has no image_proj\.\* tensors$/,
    ],
    [
      'of Stable Diffusion 1',
      (t) => [...t.keys()].filter((k) => k.startsWith('ip_adapter.')).map((k) => t.set(k, of(320, 768))),
      /changed\.safetensors is an IP-Adapter for Stable Diffusion 1: its image tokens are 768 wide, the UNet of this SDXL takes 80$/,
    ],
    [
      'of a UNet with other attentions',
      (t) => ['k', 'v'].map((part) => t.delete(`ip_adapter.33.to_${part}_ip.weight`)),
      /changed\.safetensors is an IP-Adapter for 16 cross attentions, the UNet of this SDXL has 17$/,
    ],
    [
      'of another width inside',
      (t) => t.set('ip_adapter.3.to_v_ip.weight', of(32, 80)),
      /has a shape of \[32,80\] for ip_adapter\.3\.to_v_ip\.weight, the UNet of this SDXL needs \[64,80\]$/,
    ],
    ['of the kind FaceID', (t) => t.set('image_proj.proj.0.weight', of(1, 1)), /is an IP-Adapter of the kind FaceID;/],
    ['with other tokens', (t) => t.set('image_proj.proj.weight', of(80, 24)), /makes image tokens of 80 numbers/],
  ])('%s', async (_, change, message) => {
    const ipAdapter = await changed(join(folder, 'base.safetensors'), change);
    await expect(openSdxlCheckpoint({ ...sources.base, ipAdapter })).rejects.toThrow(message);
  });

  it.each([
    ['base', 'image_proj.proj.weight', [320, 32], 'embeddings 24 wide', 32],
    ['plus', 'image_proj.proj_in.weight', [48, 40], 'states 32 wide', 40],
  ] as const)('beside an image encoder of another width: %s', async (kind, key, shape, has, takes) => {
    const ipAdapter = await changed(join(folder, `${kind}.safetensors`), (t) => t.set(key, of(...shape)));
    await expect(openSdxlCheckpoint({ ...sources[kind], ipAdapter })).rejects.toThrow(
      new RegExp(`encoder makes image ${has}, the IP-Adapter .*changed\\.safetensors takes ${takes}; give the image`),
    );
  });

  it('without its image encoder, and beside a tower without a projection', async () => {
    await expect(openSdxlCheckpoint({ ...sources.base, ipAdapterEncoder: undefined })).rejects.toThrow(
      /^--ip-adapter .*base\.safetensors needs --ip-adapter-encoder PATH/,
    );
    const tower = await changed(join(folder, 'encoder', 'model.safetensors'), (t) =>
      t.delete('visual_projection.weight'),
    );
    await expect(openSdxlCheckpoint({ ...sources.base, ipAdapterEncoder: tower })).rejects.toThrow(
      /changed\.safetensors has no visual_projection\.weight/,
    );
  });
});
