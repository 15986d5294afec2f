import { join } from 'node:path';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { thresholded } from '../../src/pipelines/common/dynamic-thresholding.js';
import { RunningJobs } from '../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { createWanPipeline } from '../../src/pipelines/wan/pipeline.js';
import { encodePrompts } from '../../src/pipelines/wan/prompt/encode-prompts.js';
import { Expected } from '../conformance/golden-folder.js';
import { difference } from '../conformance/report.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { latentsOf } from '../support/latents-of.js';
import { resultOf } from '../support/result-of.js';
import { imagesOf, sdxlRequest } from '../support/sdxl-requests.js';
import { goldens } from '../support/tiny-wan.js';

async function expectLatents(key: string, latents: Float32Array): Promise<void> {
  const expected = await Expected.read(join(goldens('dynamic-thresholding'), 'expected.safetensors'));
  const { relative } = difference(latents, expected.floats(key));
  console.log(`${key}: largest error ${relative.toExponential(1)}`);
  expect(relative).toBeLessThan(2e-5);
}

const thresholding = (mimicScale: number, percentile: number) => ({ dynamicThresholding: { mimicScale, percentile } });
const high = (more: Partial<GenerationRequest>) => sdxlRequest({ guidanceScale: 15, ...more });

describe('dynamic thresholding of SDXL', () => {
  let pipeline: SdxlPipeline;
  beforeAll(async () => {
    pipeline = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
    return () => pipeline.dispose();
  });

  it.each<[string, Partial<GenerationRequest>]>([
    ['euler', thresholding(7, 0.95)],
    ['euler_1', { ...thresholding(7, 1), seeds: [5] }],
    ['euler_rescale', { ...thresholding(7, 0.95), guidanceRescale: 0.7 }],
    ['ddim', { ...thresholding(3, 0.9), scheduler: 'ddim' }],
  ])('ends at the latents of the reference: %s', async (key, more) =>
    expectLatents(key, await latentsOf(pipeline, high(more))),
  );

  it('ends at the latents of the reference: v_prediction', async () => {
    const options = { path: inject('wholeSdxl'), backend: cpuBackend, predictionType: 'v_prediction' } as const;
    const other = await createSdxlPipeline(options);
    const latents = await latentsOf(other, high(thresholding(7, 0.9))).finally(() => other.dispose());
    await expectLatents('v_prediction', latents);
  });

  it('is off where the mimicked scale is that of guidance', async () => {
    const same = await latentsOf(pipeline, high(thresholding(15, 0.5)));
    expect(same).toEqual(await latentsOf(pipeline, high({})));
  });

  it('of images that are made together is that of each alone', async () => {
    const one = high({ ...thresholding(7, 0.9), seeds: [3, 4] });
    const other = high({ seeds: [5] });
    const together = await imagesOf(pipeline, one, other);
    const alone = [{ ...one, seeds: [3] }, { ...one, seeds: [4] }, other].map((each) => imagesOf(pipeline, each));
    const images = (await Promise.all(alone)).flat();
    expect(together).toHaveLength(3);
    for (const [i, image] of together.entries()) {
      const off = image.reduce((most, value, j) => Math.max(most, Math.abs(value - (images[i]?.[j] ?? 999))), 0);
      expect(off).toBeLessThanOrEqual(1);
    }
  });
});

describe('dynamic thresholding of WAN', () => {
  it.each([
    ['wan', 0.9],
    ['wan_1', 1],
  ])('ends at the latents of the reference: %s', async (key, percentile) => {
    const pipeline = await createWanPipeline({ path: inject('tinyWan'), backend: cpuBackend });
    try {
      const request: GenerationRequest = {
        prompt: 'a red circle moving left on a blue background',
        ...{ negativePrompt: '', width: 48, height: 32, steps: 4, guidanceScale: 12 },
        ...{ scheduler: 'flow_unipc_diffusers', seeds: [7], video: { frames: 9, shift: 5 } },
        ...thresholding(5, percentile),
      };
      const running = new RunningJobs([{ request, signal: new AbortController().signal }]);
      const texts = await resultOf(encodePrompts(0, request, running, pipeline.networks.prompts));
      const denoised = await resultOf(pipeline.denoise(0, request, texts ?? [], running));
      await expectLatents(key, denoised?.latents ?? new Float32Array());
    } finally {
      await pipeline.dispose();
    }
  });
});

describe('thresholded', () => {
  it('leaves latents that are the same everywhere as they are', () => {
    const flat = Float32Array.of(1, 1, -2, -2);
    expect(thresholded(flat, flat, 2, 0.5)).toEqual(flat);
  });
});
