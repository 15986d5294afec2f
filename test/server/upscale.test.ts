import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { estimate } from '../../src/client/client.js';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { OutputMetadata, type Upscale } from '../../src/gen/darkroom/v1/job.js';
import { writeSyntheticUpscaler } from '../../src/synthetic/upscaler.js';
import { readParameters } from '../support/read-metadata.js';
import { metadataOf, modelsOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

let folder: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  await writeSyntheticUpscaler(join(folder, 'tiny.safetensors'), 'upscaler-tiny');
  await writeFile(join(folder, 'broken.pth'), 'no zip');
  serving = await serve({ UPSCALER_DIR: folder, LIMIT_SIDE_PIXELS: '256' }, { withWan: true });
});
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

const upscale = (more: Partial<Upscale> = {}): Upscale => ({
  ...{ upscaler: '', factor: undefined, strength: undefined, steps: 0 },
  ...more,
});
const bare = { ...quick, seed: 3n, steps: 2, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE };
const outcome = (request: Partial<GenerateRequest>) => outcomeOf(serving.client, { ...bare, ...request });
const sizeOf = async (file: Buffer | undefined) => {
  const { width, height } = await sharp(file).metadata();
  return [width, height];
};

describe('a job with an upscale', () => {
  it.each([
    ['Lanczos alone', upscale(), [128, 128], { upscaler: '', factor: 2, strength: 0, steps: 2 }],
    [
      'the latents',
      upscale({ upscaler: 'latent', factor: 1.5 }),
      [96, 96],
      { upscaler: 'latent', factor: 1.5, strength: 0.6, steps: 2 },
    ],
    [
      'a network',
      upscale({ upscaler: 'tiny', factor: 3, strength: 0.5, steps: 4 }),
      [192, 192],
      { upscaler: 'tiny', factor: 3, strength: 0.5, steps: 4 },
    ],
  ] as const)('has its size and says how: %s', async (_, asked, size, said) => {
    const made = await outcome({ upscale: asked });
    expect(made.error).toBeUndefined();
    expect(await sizeOf(made.files[0])).toEqual(size);
    const { width, height, upscale: told } = metadataOf(made);
    expect([width, height, told]).toEqual([...size, said]);
  });

  it('has the factor that was asked for, so that the same request can be made again', async () => {
    const made = await outcome({ width: 72, height: 104, upscale: upscale({ factor: 1.13 }) });
    const { width, height, upscale: told } = metadataOf(made);
    expect([width, height, told?.factor]).toEqual([80, 120, 1.13]);
  });

  it("writes A1111's parameters for it", async () => {
    const asked = { upscale: upscale({ upscaler: 'tiny', strength: 0.5 }), steps: 2 };
    const { files } = await outcome({ ...asked, outputMetadata: OutputMetadata.OUTPUT_METADATA_FULL });
    expect(await readParameters(files[0] ?? Buffer.alloc(0))).toMatch(
      /Size: 64x64, Model: sdxl, Denoising strength: 0\.5, Hires resize: 128x128, Hires steps: 2, Hires upscaler: tiny/,
    );
  });

  it.each<[Partial<GenerateRequest>, string, RegExp]>([
    [
      { upscale: upscale({ upscaler: 'tin' }) },
      'UPSCALER_NOT_FOUND',
      /^upscaler "tin" is not known; the nearest are tiny/,
    ],
    [{ upscale: upscale({ upscaler: 'broken' }) }, 'CHECKPOINT_INVALID', /^upscaler "broken" is/],
    [{ upscale: upscale({ factor: 1 }) }, 'INVALID_REQUEST', /upscale\.factor 1 must be > 1 and <= 4$/],
    [{ upscale: upscale({ factor: Number.NaN }) }, 'INVALID_REQUEST', /upscale\.factor NaN must be/],
    [
      { width: 128, upscale: upscale({ factor: 4 }) },
      'INVALID_REQUEST',
      /upscale\.factor 4 makes 512x256, a side must be <= 256; use a smaller one or raise LIMIT_SIDE_PIXELS$/,
    ],
    [{ upscale: upscale({ strength: 1.1 }) }, 'INVALID_REQUEST', /upscale\.strength 1\.1 must be >= 0 and <= 1$/],
    [{ upscale: upscale({ strength: 0.4 }) }, 'INVALID_REQUEST', /upscale\.strength 0\.4 runs none of 2 steps/],
    [{ upscale: upscale({ upscaler: 'latent', strength: 0 }) }, 'INVALID_REQUEST', /must be above 0 with latent/],
    [{ upscale: upscale({ steps: 1001 }) }, 'INVALID_REQUEST', /upscale\.steps 1001 must be <= 1000/],
    [
      { scheduler: 'lcm', steps: 2, upscale: upscale({ strength: 0.5, steps: 60 }) },
      'INVALID_REQUEST',
      /upscale\.steps 60 must be <= 50 for the scheduler lcm$/,
    ],
    [{ scheduler: 'TCD', steps: 51 }, 'INVALID_REQUEST', /steps 51 must be <= 50 for the scheduler tcd$/],
    [{ model: 'wan', upscale: upscale() }, 'INVALID_REQUEST', /upscale is for SDXL; leave it out for WAN$/],
  ])('is refused: %#', async (request, reason, message) => {
    const { error } = await outcome(request);
    expect(error?.reason).toBe(reason);
    expect(error?.message).toMatch(message);
    expect(error?.message).not.toContain(folder);
  });
});

describe('Estimate', () => {
  it('adds up both passes, and has the size of the result', async () => {
    const plain = await estimate(serving.client, bare);
    const large = await estimate(serving.client, { ...bare, upscale: upscale({ upscaler: 'tiny', strength: 0.5 }) });
    expect([large.width, large.height, large.denoisingSteps]).toEqual([128, 128, plain.denoisingSteps + 1]);
    expect(large.seconds).toBeGreaterThan(plain.seconds);
    expect(large.devicePeakBytes).toBeGreaterThan(plain.devicePeakBytes);
  });
});

describe('ListModels', () => {
  it('has the upscalers, and those that cannot be used', async () => {
    const models = await modelsOf(serving);
    const of = (family: string) => models.find((model) => model.family === family)?.upscalers;
    expect(of('sdxl')?.map(({ name, architecture, scale }) => [name, architecture, scale])).toEqual([
      ['broken', '', 0],
      ['tiny', 'esrgan', 4],
    ]);
    expect(of('wan')).toEqual([]);
  });
});
