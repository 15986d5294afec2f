import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { maskedRegion } from '../../../src/pipelines/common/mask-crop.js';
import type { GenerationRequest } from '../../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { writeSyntheticControlNet } from '../../../src/synthetic/controlnet.js';
import { writeSyntheticSdxl } from '../../../src/synthetic/sdxl.js';
import { Expected } from '../../conformance/golden-folder.js';
import { difference } from '../../conformance/report.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { latentsOf } from '../../support/latents-of.js';
import { imagesOf, sdxlRequest } from '../../support/sdxl-requests.js';

const SIZE = 64;
const goldens = fileURLToPath(new URL('../../fixtures/goldens/sdxl-inpaint/expected.safetensors', import.meta.url));

const rgb = Uint8Array.from({ length: SIZE * SIZE * 3 }, (_, i) => {
  const [x, y] = [Math.floor(i / 3) % SIZE, Math.floor(i / 3 / SIZE)];
  return [4 * x, 4 * y, 2 * (x + y)][i % 3] as number;
});
const maskOf = (isDrawn: (x: number, y: number) => boolean): Uint8Array =>
  Uint8Array.from({ length: SIZE * SIZE }, (_, i) => (isDrawn(i % SIZE, Math.floor(i / SIZE)) ? 255 : 0));
const half = maskOf((x) => x >= 32);
const small = maskOf((x, y) => (x - 40) ** 2 + (y - 20) ** 2 < 81);

const request = (more: Partial<GenerationRequest> = {}) => sdxlRequest({ steps: 6, ...more });

let folder: string;
let nine: SdxlPipeline;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  const path = await writeSyntheticSdxl(join(folder, 'model'), 'sdxl-inpaint-tiny');
  nine = await createSdxlPipeline({ path, backend: cpuBackend });
});
afterAll(async () => {
  await nine.dispose();
  await rm(folder, { recursive: true });
});

describe('a UNet of nine channels', () => {
  it.each([
    ['nine.full', { init: { rgb, mask: half, strength: 1 } }],
    ['nine.unguided', { init: { rgb, mask: half, strength: 1 }, guidanceScale: 1 }],
    ['nine.part', { init: { rgb, mask: small, strength: 0.6 } }],
  ])('ends at the latents of diffusers: %s', async (key, more) => {
    const wanted = (await Expected.read(goldens)).floats(key);
    const { relative } = difference(await latentsOf(nine, request(more)), wanted);
    console.log(`${key}: largest error ${relative.toExponential(1)}`);
    expect(relative).toBeLessThan(1e-5);
  });

  it('keeps every pixel outside of the mask, and draws all of an image without one', async () => {
    const [image = new Uint8Array()] = await imagesOf(nine, request({ init: { rgb, mask: half, strength: 1 } }));
    const kept = rgb.filter((_, i) => half[Math.floor(i / 3)] === 0);
    expect(image.filter((_, i) => half[Math.floor(i / 3)] === 0)).toEqual(kept);
    const [free] = await imagesOf(nine, request());
    expect(free).not.toEqual(image);
  });

  it('draws in a batch what each image is alone, with a ControlNet, too', async () => {
    const path = join(folder, 'a.safetensors');
    await writeSyntheticControlNet(path, 'sdxl-controlnet-tiny');
    const known = { name: 'a', path, revision: '1', parameters: 0, rgb, scale: 1, start: 0, end: 1 };
    const first = request({ init: { rgb, mask: half, strength: 1 }, seeds: [3, 4], controls: [known] });
    const second = request({ init: { rgb, mask: small, strength: 1 }, seeds: [5], controls: [known] });
    const together = await imagesOf(nine, first, second);
    const alone = [
      ...(await imagesOf(nine, { ...first, seeds: [3] })),
      ...(await imagesOf(nine, { ...first, seeds: [4] })),
      ...(await imagesOf(nine, second)),
    ];
    expect(together).toEqual(alone);
  });
});

describe('only the masked part', () => {
  const wide = maskOf((x, y) => Math.abs(x - 10) < 8 && Math.abs(y - 50) < 3);
  it.each([
    ['four.crop', { rgb, mask: small, strength: 1, cropPadding: 6 }],
    ['four.crop_wide', { rgb, mask: wide, strength: 0.7, cropPadding: 4 }],
    ['nine.crop', { rgb, mask: small, strength: 1, cropPadding: 6 }],
  ])('is drawn at the full size and pasted back as diffusers does: %s', async (key, init) => {
    const wanted = (await Expected.read(goldens)).get(key);
    const isNine = key.startsWith('nine');
    const pipeline = isNine ? nine : await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
    const [image = new Uint8Array()] = await imagesOf(pipeline, request({ init }));
    if (!isNine) await pipeline.dispose();
    const { absolute } = difference(image, wanted);
    console.log(`${key}: largest error ${absolute} of 255`);
    expect(absolute).toBeLessThanOrEqual(2);
    const kept = rgb.filter((_, i) => init.mask[Math.floor(i / 3)] === 0);
    expect(image.filter((_, i) => init.mask[Math.floor(i / 3)] === 0)).toEqual(kept);
  });

  // VaeImageProcessor.get_crop_region of diffusers 0.42.1
  it.each([
    [small, 64, 64, 6, [26, 6, 55, 35]],
    [wide, 64, 64, 4, [0, 40, 22, 62]],
    [half, 64, 64, 0, [0, 0, 64, 64]],
    [small, 64, 64, 60, [0, 0, 64, 64]],
  ] as const)('has the region of diffusers: %#', (mask, width, height, padding, [x, y, x2, y2]) => {
    const region = maskedRegion(mask, { width, height }, padding);
    expect(region).toEqual({ x, y, width: x2 - x, height: y2 - y });
  });

  it('has no region where nothing is drawn', () => {
    expect(maskedRegion(new Uint8Array(16), { width: 4, height: 4 }, 2)).toBeUndefined();
  });
});
