import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { estimate } from '../../src/client/client.js';
import { type Control, ControlMode, OutputMetadata } from '../../src/gen/darkroom/v1/job.js';
import { decodeControl } from '../../src/media/decode-control.js';
import { writeSyntheticControlNet } from '../../src/synthetic/controlnet.js';
import { sdxlImage } from '../support/sdxl-image.js';
import { metadataOf, modelsOf, outcomeOf, quick, type Serving, serve } from '../support/serving.js';
import { writeTensorFile } from '../support/tensor-file.js';

const SIZE = 64;
/** Twice as wide as the images of the jobs. */
const pixels = Uint8Array.from({ length: 2 * SIZE * SIZE * 3 }, (_, i) => (Math.floor(i / 3 / 11) % 2) * 255);
const edges = await sharp(pixels, { raw: { width: 2 * SIZE, height: SIZE, channels: 3 } })
  .png()
  .toBuffer();

let folder: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  await mkdir(join(folder, 'more', 'canny'), { recursive: true });
  await writeSyntheticControlNet(join(folder, 'depth.safetensors'), 'sdxl-controlnet-tiny');
  await writeSyntheticControlNet(
    join(folder, 'more', 'canny', 'diffusion_pytorch_model.safetensors'),
    'sdxl-controlnet-tiny',
  );
  const tiny = { dtype: 'F32', shape: [1], bytes: Buffer.alloc(4) };
  await writeTensorFile(join(folder, 'old.safetensors'), new Map([['controlnet_cond_embedding.conv_in.bias', tiny]]));
  const kinds = { dtype: 'F32', shape: [6, 1], bytes: Buffer.alloc(24) };
  const union = { 'controlnet_cond_embedding.conv_in.bias': tiny, 'add_embedding.linear_1.bias': tiny };
  const unionTensors = new Map(Object.entries({ ...union, task_embedding: kinds }));
  await writeTensorFile(join(folder, 'union.safetensors'), unionTensors);
  await writeTensorFile(join(folder, 'adapter.safetensors'), new Map([['adapter.body.0.weight', tiny]]));
  serving = await serve({ SDXL_PATH: inject('wholeSdxl'), CONTROLNET_DIR: folder }, { withWan: true });
});
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

const control = (more: Partial<Control> = {}): Control => ({
  ...{ name: 'depth', source: { $case: 'image', value: edges }, scale: undefined, start: undefined, end: undefined },
  mode: ControlMode.CONTROL_MODE_UNSPECIFIED,
  ...more,
});
const bare = { ...quick, seed: 3n, guidanceScale: 5, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE };
const outcome = (request: object) => outcomeOf(serving.client, { ...bare, ...request });

describe('a job with ControlNets', () => {
  it('makes the image that the pipeline makes with them, and tells what it used', async () => {
    const controls = [control({ scale: 0.5, end: 0.5 }), control({ name: 'more/canny' })];
    const made = await outcome({ controls });
    const rgb = await decodeControl(edges, { width: SIZE, height: SIZE, maxPixels: 1e6 });
    const known = (name: string, path: string) => ({
      name,
      path: join(folder, path),
      revision: '1',
      parameters: 0,
      rgb,
    });
    const alone = await sdxlImage(
      { path: inject('wholeSdxl') },
      {
        controls: [
          { ...known('depth', 'depth.safetensors'), scale: 0.5, start: 0, end: 0.5 },
          { ...known('canny', 'more/canny/diffusion_pytorch_model.safetensors'), scale: 1, start: 0, end: 1 },
        ],
      },
    );
    expect(new Uint8Array(await sharp(made.files[0]).raw().toBuffer())).toEqual(alone);
    expect(metadataOf(made).controls).toEqual([
      { name: 'depth', scale: 0.5, start: 0, end: 0.5, source: undefined, mode: 0 },
      { name: 'more/canny', scale: 1, start: 0, end: 1, source: undefined, mode: 0 },
    ]);
  });

  it('makes three images that are each what its seed gives alone', async () => {
    const controls = [control()];
    const three = await outcome({ controls, numImages: 3 });
    const singles = [];
    for (const seed of [3n, 4n, 5n]) singles.push(...(await outcome({ controls, seed })).files);
    expect(three.files).toEqual(singles);
    expect(metadataOf(three).batchImages).toBe(3);
  });

  it.each([
    [
      { controls: [control({ name: 'dept' })] },
      'CONTROLNET_NOT_FOUND',
      /^ControlNet "dept" is not known; the nearest are depth, /,
    ],
    [
      { controls: [control({ name: 'old' })] },
      'MODEL_UNSUPPORTED',
      /^ControlNet "old" is for Stable Diffusion 1 or 2; the model is SDXL$/,
    ],
    [
      { controls: [control({ name: 'adapter' })] },
      'MODEL_UNSUPPORTED',
      /^ControlNet "adapter" is a T2I adapter; darkroom takes ControlNets$/,
    ],
    [
      { controls: [control({ mode: ControlMode.CONTROL_MODE_DEPTH })] },
      'INVALID_REQUEST',
      /^controls\[0\]\.mode must be unset: "depth" knows one kind of images$/,
    ],
    [
      { controls: [control({ name: 'union' })] },
      'INVALID_REQUEST',
      /^controls\[0\]\.mode 0 must be 1 to 6, the kinds of images that "union" knows; use a value of ControlMode$/,
    ],
    [
      { controls: [control({ name: 'union', mode: ControlMode.CONTROL_MODE_TILE })] },
      'INVALID_REQUEST',
      /^controls\[0\]\.mode 7 must be 1 to 6, /,
    ],
    [{ controls: [control({ mode: 9 as ControlMode })] }, 'INVALID_REQUEST', /controls\[0\]\.mode is unknown/],
    [{ controls: [control({ scale: 2.1 })] }, 'INVALID_REQUEST', /controls\[0\]\.scale 2\.1 must be >= 0 and <= 2$/],
    [{ controls: [control({ scale: Number.NaN })] }, 'INVALID_REQUEST', /controls\[0\]\.scale NaN must be/],
    [
      { controls: [control({ start: 0.6, end: 0.5 })] },
      'INVALID_REQUEST',
      /controls\[0\]\.start 0\.6 and end 0\.5 must be 0 to 1, start at most end$/,
    ],
    [{ controls: [control({ source: undefined })] }, 'INVALID_REQUEST', /controls\[0\] must have an image or a url$/],
    [
      { controls: [control({ source: { $case: 'url', value: '' } })] },
      'INVALID_REQUEST',
      /controls\[0\] must have an image or a url$/,
    ],
    [{ controls: new Array(5).fill(control()) }, 'INVALID_REQUEST', /controls has 5 entries, must have at most 4$/],
    [{ model: 'wan', controls: [control()] }, 'INVALID_REQUEST', /controls are for SDXL; leave them out for WAN$/],
    [
      { controls: [control({ source: { $case: 'image', value: Buffer.from('GIF89a') } })] },
      'REFERENCE_INVALID',
      /^the control image is a GIF/,
    ],
  ])('is refused: %#', async (request, reason, message) => {
    const { error } = await outcome(request);
    expect(error?.reason).toBe(reason);
    expect(error?.message).toMatch(message);
  });
});

describe('Estimate', () => {
  it('counts the weights and the runs of ControlNets', async () => {
    const without = await estimate(serving.client, bare);
    const one = await estimate(serving.client, { ...bare, controls: [control()] });
    const twice = await estimate(serving.client, { ...bare, controls: [control(), control()] });
    const other = await estimate(serving.client, { ...bare, controls: [control(), control({ name: 'more/canny' })] });
    expect(one.devicePeakBytes).toBeGreaterThan(without.devicePeakBytes);
    expect(twice.devicePeakBytes).toBe(one.devicePeakBytes);
    expect(other.devicePeakBytes - one.devicePeakBytes).toBe(one.devicePeakBytes - without.devicePeakBytes);
    expect(one.seconds).toBeGreaterThan(without.seconds);
  });
});

describe('ListModels', () => {
  it('has the ControlNets of a model, a diffusers folder by its own name', async () => {
    const models = await modelsOf(serving);
    const of = (family: string) => models.find((model) => model.family === family)?.controlnets.map(({ name }) => name);
    expect(of('sdxl')).toEqual(['adapter', 'depth', 'more/canny', 'union']);
    expect(of('wan')).toEqual([]);
  });
});

describe('decodeControl', () => {
  it('stretches an image of another shape', async () => {
    const left = Uint8Array.from({ length: 64 * 32 * 3 }, (_, i) => (Math.floor(i / 3) % 64 < 32 ? 255 : 0));
    const bytes = await sharp(left, { raw: { width: 64, height: 32, channels: 3 } })
      .png()
      .toBuffer();
    const rgb = await decodeControl(bytes, { width: 8, height: 8, maxPixels: 1e6 });
    expect(rgb).toHaveLength(8 * 8 * 3);
    expect([rgb[0], rgb[3 * 7]]).toEqual([255, 0]);
  });
});
