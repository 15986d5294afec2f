import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { GenerationRequest, RequestControl } from '../../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { writeSyntheticControlNet } from '../../../src/synthetic/controlnet.js';
import { Expected } from '../../conformance/golden-folder.js';
import { difference } from '../../conformance/report.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { latentsOf } from '../../support/latents-of.js';
import { imagesOf, sdxlRequest } from '../../support/sdxl-requests.js';
import { tempFolder } from '../../support/temp-folder.js';

const goldens = fileURLToPath(new URL('../../fixtures/goldens/sdxl-deep-cache/expected.safetensors', import.meta.url));
const lora = fileURLToPath(new URL('../../fixtures/goldens/sdxl-lora/attn.peft.safetensors', import.meta.url));

let pipeline: SdxlPipeline;
beforeAll(async () => {
  pipeline = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
});
afterAll(() => pipeline.dispose());

const request = (more: Partial<GenerationRequest> = {}) => sdxlRequest({ steps: 5, ...more });
const encodedImagesOf = async (...made: Parameters<typeof imagesOf>) =>
  (await imagesOf(...made)).map((rgb) => Buffer.from(rgb).toString('base64'));

describe('deep caching', () => {
  it.each([
    ['euler_2', { deepCacheInterval: 2 }],
    ['euler_3', { deepCacheInterval: 3, steps: 7 }],
    ['unguided_2', { deepCacheInterval: 2, steps: 4, guidanceScale: 1 }],
    ['dpmpp_2m_2', { deepCacheInterval: 2, steps: 6, scheduler: 'dpmpp_2m' }],
    ['plain', { deepCacheInterval: 1 }],
  ])('ends at the latents of diffusers with a cached block: %s', async (key, more) => {
    const wanted = (await Expected.read(goldens)).floats(key);
    const { relative } = difference(await latentsOf(pipeline, request(more)), wanted);
    console.log(`${key}: largest error ${relative.toExponential(1)}`);
    expect(relative).toBeLessThan(1e-5);
  });

  it('gives each image of a batch what it gets alone, beside jobs without it, and in a second pass', async () => {
    const jobs = [
      request({ deepCacheInterval: 2, seeds: [3, 4, 5] }),
      request({ seeds: [7] }),
      request({
        deepCacheInterval: 3,
        seeds: [8],
        upscale: { method: 'lanczos', factor: 2, width: 128, height: 128, strength: 0.8, steps: 5 },
      }),
    ];
    const alone: string[] = [];
    for (const job of jobs)
      for (const seed of job.seeds) alone.push(...(await encodedImagesOf(pipeline, { ...job, seeds: [seed] })));
    expect(await encodedImagesOf(pipeline, ...jobs)).toEqual(alone);
  });

  it('works with LoRAs and ControlNets', async () => {
    const path = join(await tempFolder(), 'a.safetensors');
    await writeSyntheticControlNet(path, 'sdxl-controlnet-tiny');
    const rgb = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7) % 256);
    const control: RequestControl = { name: 'a', path, revision: '1', parameters: 0, rgb, scale: 1, start: 0, end: 1 };
    const variant = await pipeline.withLoras([{ path: lora, weight: 0.8 }]);
    const of = (more: Partial<GenerationRequest>) =>
      encodedImagesOf(variant, request({ controls: [control], ...more }));
    const [whole] = await of({});
    const [cached] = await of({ deepCacheInterval: 2 });
    await variant.dispose();
    const [bare] = await encodedImagesOf(pipeline, request({ deepCacheInterval: 2 }));
    expect(new Set([whole, cached, bare]).size).toBe(3);
    const [a, b] = [whole, cached].map((image) => Buffer.from(image ?? '', 'base64')) as [Buffer, Buffer];
    const mean = a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] ?? 0)), 0) / a.length;
    expect(mean).toBeLessThan(40);
  });
});
