import { join } from 'node:path';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { plannedForwards } from '../../../src/pipelines/common/guidance.js';
import { RunningJobs } from '../../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest, KnownImages, VideoRequest } from '../../../src/pipelines/pipeline.js';
import { createWanPipeline, type WanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { encodePrompts } from '../../../src/pipelines/wan/prompt/encode-prompts.js';
import { planSteps } from '../../../src/pipelines/wan/step-plan.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { Expected, rebuildModel } from '../../conformance/golden-folder.js';
import { difference } from '../../conformance/report.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { resultOf } from '../../support/result-of.js';
import { tempFolder } from '../../support/temp-folder.js';
import { goldens } from '../../support/tiny-wan.js';

const expected = (name: string) => Expected.read(join(goldens(name), 'expected.safetensors'));

async function withModel(name: string, use: (pipeline: WanPipeline) => Promise<void>): Promise<void> {
  const path = await rebuildModel(goldens(name), join(await tempFolder(), name));
  const pipeline = await createWanPipeline({ path, backend: cpuBackend });
  await use(pipeline).finally(() => pipeline.dispose());
}

const base: GenerationRequest = {
  prompt: 'a red circle moving left on a blue background',
  negativePrompt: '',
  width: 48,
  height: 32,
  steps: 4,
  guidanceScale: 5,
  scheduler: 'flow_unipc_diffusers',
  seeds: [7],
};

function requested(video: Partial<VideoRequest>, more: Partial<GenerationRequest> = {}): GenerationRequest {
  return { ...base, ...more, video: { frames: 9, shift: 5, ...video } };
}

async function latentsOf(pipeline: WanPipeline, request: GenerationRequest): Promise<Float32Array> {
  const running = new RunningJobs([{ request, signal: new AbortController().signal }]);
  const texts = await resultOf(encodePrompts(0, request, running, pipeline.networks.prompts));
  const denoised = await resultOf(pipeline.denoise(0, request, texts ?? [], running));
  if (denoised === undefined) throw new Error('the job ended by itself');
  return denoised.latents;
}

async function expectLatents(pipeline: WanPipeline, key: string, request: GenerationRequest): Promise<void> {
  const wanted = (await expected('wan-skip-layers')).floats(key);
  const { relative } = difference(await latentsOf(pipeline, request), wanted);
  console.log(`${key}: largest error ${relative.toExponential(1)}`);
  expect(relative).toBeLessThan(1e-4);
}

const late = { start: 0.25, end: 1, scale: 0 };

describe('skip-layer guidance ends at the latents of diffusers', () => {
  let pipeline: WanPipeline;
  beforeAll(async () => {
    pipeline = await createWanPipeline({ path: inject('tinyWan'), backend: cpuBackend });
    return () => pipeline.dispose();
  });

  it.each<[string, GenerationRequest]>([
    ['simple', requested({ skipLayers: { layers: [1], ...late } })],
    ['simple_both', requested({ skipLayers: { layers: [1, 0], start: 0, end: 0.5, scale: 0 } })],
    ['scaled', requested({ skipLayers: { layers: [1], start: 0.2, end: 0.6, scale: 2.8 } }, { steps: 5, seeds: [8] })],
    [
      'scaled_unguided',
      requested(
        { skipLayers: { layers: [0], start: 0.2, end: 1, scale: 2 } },
        { steps: 5, seeds: [8], guidanceScale: 1 },
      ),
    ],
  ])('of text-to-video: %s', (key, request) => expectLatents(pipeline, key, request));

  it.each([
    // Block 0 of VACE has a hint behind it, which is added although the block is skipped.
    ['wan-vace-tiny', 'vace', [0, 1], undefined, { seeds: [4] }],
    ['wan-i2v-tiny', 'i2v', [1], 'first', { seeds: [5] }],
    ['wan-fun-inp-tiny', 'fun-inp', [9, 10], 'first', { seeds: [5] }],
    ['wan-ti2v-tiny', 'ti2v', [1], undefined, { width: 96, height: 64 }],
  ] as const)('of %s', async (name, key, layers, picture, more) => {
    const start = picture && Uint8Array.from((await expected(name)).get(picture));
    await withModel(name, async (own) => {
      const known: KnownImages | undefined = start && { method: 'image_conditioning', start, strength: 1 };
      await expectLatents(own, key, requested({ known, skipLayers: { layers, ...late } }, more));
    });
  });

  it('as a batch and text by text', async () => {
    const size = { frames: 3, height: 4, width: 6 };
    const latents = hashTensor('noise', [2, 16, 3, 4, 6]);
    const texts = [hashTensor('a', [7, 32]), hashTensor('b', [3, 32])];
    const call = { latents, size, timestep: 321, texts, skips: [[1], []] };
    const { denoiser } = pipeline.networks;
    const together = await denoiser.predict(call);
    expect(difference(await denoiser.predict({ ...call, oneByOne: true }), together).relative).toBeLessThan(1e-6);
    const whole = await denoiser.predict({ ...call, skips: undefined });
    const half = latents.length / 2;
    expect(together.subarray(half)).toEqual(whole.subarray(half));
    expect(difference(together.subarray(0, half), whole.subarray(0, half)).relative).toBeGreaterThan(0.01);
  });

  it('is off in a range without steps', async () => {
    const plain = await latentsOf(pipeline, requested({}));
    const none = { layers: [1], start: 0.5, end: 0.5, scale: 3 };
    expect(await latentsOf(pipeline, requested({ skipLayers: none }))).toEqual(plain);
  });
});

describe('the plan of skip-layer guidance', () => {
  const rowsOf = (request: GenerationRequest) => planSteps(request).map(({ rows }) => rows.join(' '));
  const skipping = { layers: [1], start: 0.25, end: 0.75 };

  it('skips in the unconditional half of guided steps, at no further run', () => {
    const guidanceInterval = { start: 0, end: 0.5 };
    const request = requested({ skipLayers: { ...skipping, scale: 0 }, guidanceInterval });
    expect(rowsOf(request)).toEqual(['negative prompt', 'negative_skipping prompt', 'prompt', 'prompt']);
    expect(plannedForwards(request)).toBe(6);
  });

  it('has a run of its own with a scale, also without guidance', () => {
    const guidanceInterval = { start: 0, end: 0.5 };
    const request = requested({ skipLayers: { ...skipping, scale: 2 }, guidanceInterval });
    const own = ['negative prompt', 'negative prompt_skipping prompt', 'prompt_skipping prompt', 'prompt'];
    expect(rowsOf(request)).toEqual(own);
    expect(plannedForwards(request)).toBe(8);
  });

  it('reuses only a run that skipped the same, or that has the rows of the step at its end', () => {
    const embeddings = Array.from({ length: 8 }, () => Float32Array.of(1));
    const isReused = (video: Partial<VideoRequest>) =>
      planSteps(requested({ reuseThreshold: 1, ...video }, { steps: 8 }), embeddings)
        .map((step) => (step.isReused ? 'r' : '-'))
        .join('');
    expect(isReused({})).toBe('-rrrrrr-');
    expect(isReused({ skipLayers: { ...skipping, scale: 0 } })).toBe('-r-rrr--');
    expect(isReused({ skipLayers: { ...skipping, scale: 2 } })).toBe('-r-rrr--');
    const skipLayers = { ...skipping, scale: 2 };
    expect(isReused({ skipLayers, guidanceInterval: { start: 0, end: 0.5 } })).toBe('-r-rrrr-');
  });

  it('reuses with blocks skipped what the whole run makes of the same latents', async () => {
    await withModel('wan-tiny', async ({ networks: { denoiser } }) => {
      const size = { frames: 3, height: 4, width: 6 };
      const latents = hashTensor('noise', [2, 16, 3, 4, 6]);
      const texts = [hashTensor('a', [7, 32]), hashTensor('b', [3, 32])];
      const call = { latents, size, timestep: 321, texts, skips: [[0], []] };
      const { flow, kept } = await denoiser.predictAndKeep(call);
      expect(difference(await denoiser.predictFrom(kept, call), flow).relative).toBeLessThan(1e-6);
    });
  });
});
