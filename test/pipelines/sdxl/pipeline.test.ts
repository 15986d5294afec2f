import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { cleanLatents, outputOfLatents } from '../../../src/pipelines/common/clean-latents.js';
import { imageFromRgb, rgbFromImage } from '../../../src/pipelines/common/rgb-image.js';
import type { GenerationRequest, PipelineEvent } from '../../../src/pipelines/pipeline.js';
import { createSdxlPipeline, SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { endTokenIndex } from '../../../src/pipelines/sdxl/prompt/text-rows.js';
import { callsInStep, schedulerNames } from '../../../src/schedulers/beta-schedulers.js';
import { cpuBackend } from '../../support/cpu-backend.js';

const request: GenerationRequest = {
  prompt: 'a small blue star',
  negativePrompt: 'blurry',
  width: 64,
  height: 64,
  steps: 3,
  guidanceScale: 5,
  scheduler: 'euler',
  seeds: [5],
};

let pipeline: SdxlPipeline;
beforeAll(async () => {
  pipeline = await createSdxlPipeline({
    path: inject('wholeSdxl'),
    backend: cpuBackend,
    batchPixels: 2 ** 20,
  });
});
afterAll(() => pipeline.dispose());

async function run(
  changes: Partial<GenerationRequest> = {},
): Promise<{ events: PipelineEvent[]; images: Uint8Array[] }> {
  const events: PipelineEvent[] = [];
  const jobs = [{ request: { ...request, ...changes }, signal: new AbortController().signal }];
  for await (const event of pipeline.generate(jobs)) events.push(event);
  return { events, images: events.flatMap((event) => (event.kind === 'image' ? [event.rgb] : [])) };
}

/** What an image may differ by for having been made in company, of 255. */
const TOLERANCE = 2;

function difference(a: Uint8Array | undefined, b: Uint8Array | undefined): number {
  if (a === undefined || b === undefined || a.length !== b.length) return Number.POSITIVE_INFINITY;
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? 0))), 0);
}

const encodes = (events: PipelineEvent[]) =>
  events.filter((event) => event.kind === 'progress' && event.phase === 'encode').length;

describe('SdxlPipeline', () => {
  it('runs the text encoders once for a repeated prompt', async () => {
    const prompt = 'a green field at noon';
    expect(encodes((await run({ prompt, negativePrompt: 'grain' })).events)).toBe(2);
    expect(encodes((await run({ prompt, negativePrompt: 'grain' })).events)).toBe(0);
    expect(encodes((await run({ prompt: `${prompt}!`, negativePrompt: 'grain' })).events)).toBe(1);
  });

  it('makes the same image of a seed in a batch as alone', async () => {
    const { images } = await run({ seeds: [5, 6, 7] });
    const { images: alone } = await run({ seeds: [6] });
    expect(images).toHaveLength(3);
    expect(difference(images[1], alone[0])).toBeLessThanOrEqual(TOLERANCE);
    expect(difference(images[0], images[1])).toBeGreaterThan(TOLERANCE);
  });

  it('treats an absent negative prompt differently from an empty one', async () => {
    const { images: absent } = await run({ negativePrompt: undefined });
    const { images: empty } = await run({ negativePrompt: '' });
    expect(absent[0]).not.toEqual(empty[0]);
  });

  it.each([
    [56, 104],
    [72, 64],
    [8, 8],
  ])('takes %i by %i, where halving a side rounds up', async (width, height) => {
    const { images } = await run({ width, height });
    expect(images[0]).toHaveLength(width * height * 3);
  });

  it('stops between two runs when cancelled', async () => {
    const abort = new AbortController();
    const steps: number[] = [];
    let last = '';
    const loop = async () => {
      for await (const event of pipeline.generate([{ request: { ...request, steps: 50 }, signal: abort.signal }])) {
        if (event.kind === 'progress' && event.phase === 'denoise') steps.push(event.step);
        if (steps.length === 3) abort.abort(new Error('enough'));
        last = event.kind;
      }
    };
    await loop();
    expect(steps).toEqual([1, 2, 3]);
    expect(last).toBe('aborted');
  });

  it('ends a run when its only job is cancelled, and goes on with the others', async () => {
    const abort = new AbortController();
    // Of different sizes: each is denoised on its own, the large one in steps of more than a second.
    const large = { ...request, width: 768, height: 768, steps: 2, seeds: [1] };
    const jobs = [
      { request: large, signal: abort.signal },
      { request, signal: new AbortController().signal },
    ];
    const events: string[] = [];
    for await (const event of pipeline.generate(jobs)) {
      const name = event.kind === 'progress' ? `${event.phase} ${event.step}` : event.kind;
      events.push(`${event.job} ${name}`);
      if (events.at(-1) === '0 denoise 1') setTimeout(() => abort.abort(new Error('enough')), 50);
    }
    // A run that went on would have finished the second step.
    expect(events.filter((event) => /^0 (denoise|decode|aborted|done)/.test(event))).toEqual([
      '0 denoise 1',
      '0 aborted',
    ]);
    expect(events.at(-1)).toBe('1 done');
  });
});

describe('a batch', () => {
  it.each(['euler', 'dpmpp_2m_karras', 'unipc', 'euler_ancestral'])(
    'of six images equals six single images: %s',
    async (scheduler) => {
      const seeds = [11, 12, 13, 14, 15, 16];
      const { images } = await run({ scheduler, seeds, steps: 8 });
      for (const [k, seed] of seeds.entries()) {
        const { images: alone } = await run({ scheduler, seeds: [seed], steps: 8 });
        expect(difference(images[k], alone[0]), `seed ${seed}`).toBeLessThanOrEqual(TOLERANCE);
      }
    },
  );

  it('runs the denoiser once a step for all of its images', async () => {
    const { events } = await run({ seeds: [1, 2, 3, 4, 5, 6], steps: 3 });
    const steps = events.flatMap((event) =>
      event.kind === 'progress' && event.phase === 'denoise' ? [event.step] : [],
    );
    expect(steps).toEqual([6, 12, 18]);
  });

  it('is split where its pixels exceed the bound', async () => {
    const small = new SdxlPipeline(pipeline.networks, 4 * 64 * 64);
    const steps: number[] = [];
    const jobs = [
      { request: { ...request, seeds: [1, 2, 3, 4, 5, 6], steps: 2 }, signal: new AbortController().signal },
    ];
    for await (const event of small.generate(jobs))
      if (event.kind === 'progress' && event.phase !== 'encode')
        steps.push(event.phase === 'decode' ? -event.step : event.step);
    expect(steps).toEqual([4, 8, -1, -2, -3, -4, 10, 12, -5, -6]);
  });

  it('of several jobs makes the same images as each job alone, whatever its prompt and guidance', async () => {
    const changes: readonly Partial<GenerationRequest>[] = [
      { prompt: 'a green hill', seeds: [1, 2] },
      { prompt: 'two boats at sea', negativePrompt: undefined, guidanceScale: 8, seeds: [3] },
      { prompt: 'a bridge', guidanceScale: 1, seeds: [4] },
    ];
    const jobs = changes.map((change) => ({
      request: { ...request, ...change },
      signal: new AbortController().signal,
    }));
    const together = new Map<number, Uint8Array[]>();
    for await (const event of pipeline.generate(jobs))
      if (event.kind === 'image') together.set(event.job, [...(together.get(event.job) ?? []), event.rgb]);
    for (const [job, change] of changes.entries()) {
      const { images } = await run(change);
      for (const [k, image] of images.entries())
        expect(difference(together.get(job)?.[k], image)).toBeLessThanOrEqual(TOLERANCE);
    }
  });

  it('continues without a cancelled job', async () => {
    const abort = new AbortController();
    const jobs = [abort, new AbortController()].map(({ signal }, i) => ({
      request: { ...request, steps: 6, seeds: [i] },
      signal,
    }));
    const ended: [number, string][] = [];
    const steps = [0, 0];
    for await (const event of pipeline.generate(jobs)) {
      if (event.kind === 'progress' && event.phase === 'denoise') steps[event.job] = event.step;
      if (steps[0] === 2) abort.abort();
      if (event.kind === 'aborted' || event.kind === 'done') ended.push([event.job, event.kind]);
    }
    expect(ended).toEqual([
      [0, 'aborted'],
      [1, 'done'],
    ]);
    expect(steps).toEqual([2, 6]);
  });
});

describe('image to image', () => {
  const size = { width: 64, height: 64 };
  const rgb = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i % 3 === 0 ? 200 : 60));
  const from = (strength: number, more: Partial<GenerationRequest> = {}) =>
    run({ steps: 10, init: { rgb, strength }, ...more });
  const stepsOf = (events: PipelineEvent[]) =>
    events.filter((event) => event.kind === 'progress' && event.phase === 'denoise').length;

  it.each([
    [0.3, 3],
    [0.55, 5],
    [1, 10],
  ])('at strength %f runs %i of ten steps', async (strength, steps) => {
    expect(stepsOf((await from(strength)).events)).toBe(steps);
  });

  it('keeps less of the image at a higher strength', async () => {
    const latents = await pipeline.networks.autoencoder.encodeLatents(imageFromRgb(rgb, size), size);
    const kept = rgbFromImage(await pipeline.networks.autoencoder.decode(latents, size), size);
    const mean = (image: Uint8Array | undefined) =>
      kept.reduce((sum, value, i) => sum + Math.abs(value - (image?.[i] ?? 0)), 0) / kept.length;
    const [weak, strong] = [await from(0.1), await from(0.9)];
    expect(mean(weak.images[0])).toBeLessThan(mean(strong.images[0]));
  });

  it.each(schedulerNames)('starts in the middle of %s', async (scheduler) => {
    const { images, events } = await from(0.5, { scheduler });
    expect(stepsOf(events)).toBe(callsInStep(scheduler, 5) === 2 ? 9 : 5);
    // A sampler that mixed up its levels would end in noise far out of range: all black and white.
    const extremes = images[0]?.filter((value) => value === 0 || value === 255).length ?? 0;
    expect(extremes).toBeLessThan(0.5 * rgb.length);
  });
});

describe('previews', () => {
  const previews = (events: PipelineEvent[]) => events.flatMap((event) => (event.kind === 'preview' ? [event] : []));

  it('are emitted on request, one pixel a latent, at most at the requested rate', async () => {
    expect(previews((await run({ steps: 5 })).events)).toEqual([]);
    const { events } = await run({ steps: 5, previewsPerSecond: 0.001 });
    expect(previews(events)).toMatchObject([{ index: 0, width: 8, height: 8 }]);
    expect(previews(events)[0]?.rgb).toHaveLength(8 * 8 * 3);
  });

  it('show the clean image, not the noise', () => {
    const [x0, noise, sigma] = [0.7, -1.3, 14.6];
    const alpha = 1 / Math.sqrt(1 + sigma ** 2);
    const input = Float32Array.of(alpha * x0 + sigma * alpha * noise);
    const v = Float32Array.of(alpha * noise - sigma * alpha * x0);
    for (const [prediction, output] of [
      ['epsilon', Float32Array.of(noise)],
      ['v_prediction', v],
    ] as const) {
      const clean = cleanLatents({ input, sigma, prediction }, output);
      expect(clean[0]).toBeCloseTo(x0, 4);
      expect(outputOfLatents({ input, sigma, prediction }, clean)[0]).toBeCloseTo(output[0] ?? 0, 6);
    }
  });
});

describe('endTokenIndex', () => {
  it.each([
    ['the first end token', [7, 1, 9, 9, 9], 9, 2],
    ['the largest id where the configuration names 2', [7, 2, 9, 0, 0], 2, 2],
  ])('finds %s', (_, ids, eos, index) => {
    expect(endTokenIndex(Int32Array.from(ids), eos)).toBe(index);
  });
});

describe('rgbFromImage', () => {
  it('interleaves, clamps and rounds half to even', () => {
    const half = (0.5 / 255) * 2 - 1; // 0.5 of a step: rounds to 0
    const image = Float32Array.of(-2, 1, half, 2, 0, -1);
    expect([...rgbFromImage(image, { width: 2, height: 1 })]).toEqual([0, 0, 128, 255, 255, 0]);
  });
});
