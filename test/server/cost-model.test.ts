import { describe, expect, it } from 'vitest';
import type { EngineTimings } from '../../src/engine/messages.js';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import { CostModel } from '../../src/server/jobs/cost-model.js';

const request: GenerationRequest = {
  prompt: '',
  negativePrompt: undefined,
  width: 512,
  height: 512,
  steps: 10,
  guidanceScale: 6,
  scheduler: 'euler',
  seeds: [1],
};
const MP = 1024 * 1024;
const GB = 1e9;
/** 0.5 s of text, 4 s for ten guided steps, 0.8 s of VAE and 0.2 s of PNG. */
const timings: EngineTimings = {
  encodeMs: 500,
  denoiseMs: 4000,
  decodeMs: 800,
  mediaMs: 200,
  totalMs: 5500,
  batchImages: 1,
  memoryMeasures: [],
  peakBytes: 3 * GB,
  buildMs: 0,
  variants: { keys: [], builds: 0 },
  precisions: [],
  modelPrecisions: [],
};

function learnt(): CostModel {
  const costs = new CostModel(3 * MP);
  costs.observeLoaded(2 * GB);
  costs.observe(request, timings);
  return costs;
}

describe('CostModel', () => {
  it('knows nothing before a job ended', () => {
    const costs = new CostModel(3 * MP);
    expect(costs.estimate(request)).toBeUndefined();
    expect(costs.peakBytes(request)).toBeUndefined();
  });

  it.each([
    ['the same job', {}, { encode: 0.5, denoise: 4, decode: 1, total: 5.5 }],
    ['twice the steps', { steps: 20 }, { denoise: 8, decode: 1 }],
    ['three pictures', { seeds: [1, 2, 3] }, { encode: 0.5, denoise: 12, decode: 3 }],
    ['no guidance', { guidanceScale: 1 }, { denoise: 2 }],
    ['four times the pixels', { width: 1024, height: 1024 }, { denoise: 16, decode: 4 }],
    ['half the steps on a reference', { init: { rgb: new Uint8Array(), strength: 0.5 } }, { denoise: 2 }],
  ] as const)('expects of %s', (_, change, expected) => {
    expect(learnt().estimate({ ...request, ...change })).toMatchObject(expected);
  });

  it('follows what jobs take now', () => {
    const costs = learnt();
    for (let i = 0; i < 30; i += 1) costs.observe(request, { ...timings, denoiseMs: 8000 });
    expect(costs.estimate(request)?.denoise).toBeCloseTo(8, 1);
  });

  it('is not misled by forwards that were saved', () => {
    const costs = new CostModel(3 * MP);
    const video = { frames: 9, shift: 5 };
    const saving = { ...request, video: { ...video, guidanceInterval: { start: 0.2, end: 0.8 } } };
    // Ten steps, six of them guided; two whole steps were left out by reuse: 12 forwards of 0.25 s.
    costs.observe(
      { ...saving, video: { ...saving.video, reuseThreshold: 0.1 } },
      { ...timings, denoiseMs: 3000, forwards: 12 },
    );
    expect(costs.estimate({ ...request, video })?.denoise).toBe(5);
    expect(costs.estimate(saving)?.denoise).toBe(4);
  });

  it('keeps sizes apart once both were seen', () => {
    const costs = learnt();
    const large = { ...request, width: 1024, height: 1024 };
    costs.observe(large, { ...timings, denoiseMs: 20_000 });
    expect(costs.estimate(large)?.denoise).toBe(20);
    expect(costs.estimate(request)?.denoise).toBe(4);
  });

  it('shares the time of a batch among its pictures', () => {
    const costs = new CostModel(3 * MP);
    costs.observe(request, { ...timings, denoiseMs: 12_000, batchImages: 3 });
    expect(costs.estimate(request)?.denoise).toBe(4);
  });

  it('takes the peak of the process as that of the largest job, though a smaller one is told of it', () => {
    const costs = learnt();
    const large = { ...request, width: 1024, height: 1024 };
    costs.observe(large, { ...timings, peakBytes: 6 * GB });
    // A small job that raises it by a little does not cost as much as the large one for each of its pixels.
    costs.observe({ ...request, width: 64, height: 64 }, { ...timings, peakBytes: 6.1 * GB });
    expect((costs.peakBytes(large) ?? 0) / GB).toBeCloseTo(6.1, 5);
    expect(costs.peakBytes(request)).toBeLessThan(3.1 * GB);
  });

  it('knows the size of a job that was cancelled', () => {
    const costs = new CostModel(3 * MP);
    costs.observeLoaded(2 * GB);
    const large = { ...request, width: 1024, height: 1024 };
    costs.observeStarted(large);
    costs.observe({ ...request, width: 64, height: 64 }, { ...timings, peakBytes: 6 * GB });
    expect(costs.peakBytes(large)).toBe(6 * GB);
  });

  it('expects memory by what is computed of a job, where that is known: a text encoder is open once, however long the clip', () => {
    const clip = (frames: number) => ({ ...request, video: { frames, shift: 5 } });
    const costs = new CostModel(
      3 * MP,
      ({ video, seeds }) => 0.5 * GB + 0.001 * GB * (video?.frames ?? 1) * seeds.length,
    );
    costs.observeLoaded(2 * GB);
    costs.observe(clip(5), { ...timings, peakBytes: 2 * GB + 0.505 * GB });
    expect((costs.peakBytes(clip(81)) ?? 0) / GB).toBeCloseTo(2.581, 6);
  });

  it('expects memory above the loaded model by the pixels that are denoised at once', () => {
    const costs = learnt();
    expect(costs.peakBytes(request)).toBe(3 * GB);
    expect(costs.peakBytes({ ...request, seeds: [1, 2, 3] })).toBe(5 * GB);
    // Six of them are two batches of three.
    const large = { ...request, width: 1024, height: 1024 };
    expect(costs.peakBytes({ ...large, seeds: [1, 2, 3, 4, 5, 6] })).toBe(
      costs.peakBytes({ ...large, seeds: [1, 2, 3] }),
    );
  });
});
