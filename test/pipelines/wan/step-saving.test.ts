import { beforeAll, describe, expect, inject, it } from 'vitest';
import type { GenerationRequest, PipelineEvent, VideoRequest } from '../../../src/pipelines/pipeline.js';
import { createWanPipeline, type WanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { planSteps } from '../../../src/pipelines/wan/step-plan.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { cpuBackend } from '../../support/cpu-backend.js';

const request: GenerationRequest = {
  prompt: 'a red kite over a field',
  negativePrompt: 'blurry',
  width: 32,
  height: 32,
  steps: 8,
  guidanceScale: 5,
  scheduler: 'flow_unipc',
  seeds: [3],
  video: { frames: 5, shift: 5 },
};

let pipeline: WanPipeline;
let plain: Made;
beforeAll(async () => {
  pipeline = await createWanPipeline({ path: inject('tinyWan'), backend: cpuBackend });
  plain = await made();
  return () => pipeline.dispose();
});

interface Made {
  readonly frames: Buffer;
  readonly forwards: number | undefined;
  readonly texts: number;
}

function saving(video: Partial<VideoRequest>, more: Partial<GenerationRequest> = {}): GenerationRequest {
  return { ...request, ...more, video: { frames: 5, shift: 5, ...video } };
}

async function made(video: Partial<VideoRequest> = {}, more: Partial<GenerationRequest> = {}): Promise<Made> {
  const frames: Uint8Array[] = [];
  let forwards: number | undefined;
  let texts = 0;
  const signal = new AbortController().signal;
  for await (const event of pipeline.generate([{ request: saving(video, more), signal }])) {
    if (event.kind === 'frames') frames.push(...event.frames);
    if (event.kind === 'done') forwards = event.forwards;
    if (event.kind === 'progress' && event.phase === 'encode') texts += 1;
  }
  return { frames: Buffer.concat(frames), forwards, texts };
}

const distance = (a: Buffer, b: Buffer) => a.reduce((sum, x, i) => sum + Math.abs(x - (b[i] ?? 0)), 0) / a.length;

describe('guidance inside an interval', () => {
  it('over all steps equals guidance without an interval', async () => {
    const all = await made({ guidanceInterval: { start: 0, end: 1 } });
    expect(plain.forwards).toBe(16);
    expect(all.forwards).toBe(16);
    expect(all.frames.equals(plain.frames)).toBe(true);
  });

  it('over no step equals a guidance scale of 1, and the negative prompt is not encoded', async () => {
    const none = await made({ guidanceInterval: { start: 0.5, end: 0.5 } }, { negativePrompt: 'never seen' });
    const unguided = await made({}, { guidanceScale: 1 });
    expect([none.forwards, none.texts]).toEqual([8, 0]);
    expect(none.frames.equals(unguided.frames)).toBe(true);
    expect(none.frames.equals(plain.frames)).toBe(false);
  });

  it('runs the prompt alone outside', async () => {
    const some = await made({ guidanceInterval: { start: 0.25, end: 0.5 } });
    expect(some.forwards).toBe(8 + 2);
    expect(some.frames.equals(plain.frames)).toBe(false);
  });

  it.each([
    [100, 0.07, 0.29, 7, 28],
    [10, 0.3, 0.7, 3, 6],
    [3, 0.5, 1, 2, 2],
  ])('of %i steps from %d to %d guides steps %i to %i', (steps, start, end, first, last) => {
    const plan = planSteps(saving({ guidanceInterval: { start, end } }, { steps }));
    const guided = plan.flatMap(({ rows }, i) => (rows.length === 2 ? [i] : []));
    expect([guided[0], guided.at(-1), guided.length]).toEqual([first, last, last - first + 1]);
  });
});

describe('reuse of the residual', () => {
  it('is off at a threshold of 0', async () => {
    const off = await made({ reuseThreshold: 0 });
    expect(off.forwards).toBe(16);
    expect(off.frames.equals(plain.frames)).toBe(true);
  });

  it('runs only the first and the last step in full where the threshold is above every change', async () => {
    const reused = await made({ reuseThreshold: 1e6 });
    expect(reused.forwards).toBe(4);
    expect(reused.frames.equals(plain.frames)).toBe(false);
  });

  it('comes closer to the full result with a lower threshold, in more runs', async () => {
    const changes = await meanChange();
    const [low, high] = [await made({ reuseThreshold: 1.5 * changes }), await made({ reuseThreshold: 1e6 })];
    expect(low.forwards).toBeGreaterThan(high.forwards ?? 0);
    expect(low.forwards).toBeLessThan(16);
    expect(distance(low.frames, plain.frames)).toBeLessThan(distance(high.frames, plain.frames));
  });

  it('reuses only the prompt half when guidance ends, and runs in full when guidance begins', async () => {
    const ends = await made({ reuseThreshold: 1e6, guidanceInterval: { start: 0, end: 0.5 } });
    expect(ends.forwards).toBe(2 + 1);
    const begins = await made({ reuseThreshold: 1e6, guidanceInterval: { start: 0.5, end: 1 } });
    expect(begins.forwards).toBe(1 + 2 + 2);
  });

  it('from a run with the same latents and timestep returns that run', async () => {
    const size = { frames: 2, height: 4, width: 6 };
    const latents = hashTensor('noise', [2, 16, 2, 4, 6]);
    const texts = [hashTensor('a', [7, 32]), hashTensor('b', [3, 32])];
    const { flow, kept } = await pipeline.networks.denoiser.predictAndKeep({ latents, size, timestep: 321, texts });
    expect(await pipeline.networks.denoiser.predict({ latents, size, timestep: 321, texts })).toEqual(flow);
    const same = await pipeline.networks.denoiser.predictFrom(kept, { latents, size, timestep: 321 });
    expect(Math.max(...same.map((x, i) => Math.abs(x - (flow[i] ?? 9))))).toBeLessThan(1e-6);
    // Each half goes on from its own residual.
    const half = {
      latents: latents.subarray(latents.length / 2),
      hidden: kept.hidden.subarray(kept.hidden.length / 2),
    };
    const second = await pipeline.networks.denoiser.predictFrom(half, { latents: half.latents, size, timestep: 321 });
    expect(Math.max(...second.map((x, i) => Math.abs(x - (flow[flow.length / 2 + i] ?? 9))))).toBeLessThan(1e-6);
  });

  it('stops when cancelled between two reusing steps, and does not affect the next job', async () => {
    const abort = new AbortController();
    const seen: PipelineEvent[] = [];
    for await (const event of pipeline.generate([{ request: saving({ reuseThreshold: 1e6 }), signal: abort.signal }])) {
      seen.push(event);
      if (event.kind === 'progress' && event.phase === 'denoise' && event.step === 3) abort.abort();
    }
    expect(seen.at(-1)?.kind).toBe('aborted');
    expect(seen.filter((event) => event.kind === 'progress' && event.phase === 'denoise')).toHaveLength(3);
    expect((await made()).frames.equals(plain.frames)).toBe(true);
  });
});

describe('planSteps', () => {
  const embeddings = [10, 11, 12.1, 13.31, 14.641, 16.1051].map((x) => Float32Array.of(x, -x));
  const reused = (reuseThreshold: number) =>
    planSteps(saving({ reuseThreshold }, { steps: 6 }), embeddings).map(({ isReused }) => (isReused ? 1 : 0));

  it.each([
    [0, [0, 0, 0, 0, 0, 0]],
    [0.05, [0, 0, 0, 0, 0, 0]],
    [0.15, [0, 1, 0, 1, 0, 0]],
    [0.25, [0, 1, 1, 0, 1, 0]],
    [0.35, [0, 1, 1, 1, 0, 0]],
    [9, [0, 1, 1, 1, 1, 0]],
  ])('with changes of 0.1 a step and a threshold of %d reuses %o', (threshold, expected) => {
    expect(reused(threshold)).toEqual(expected);
  });
});

/** Of the timestep embedding, from one step to the next. */
async function meanChange(): Promise<number> {
  const timesteps = [1000, 900];
  const [a = new Float32Array(), b = new Float32Array()] = await pipeline.networks.denoiser.timeEmbeddings(timesteps);
  const size = a.reduce((sum, x) => sum + Math.abs(x), 0);
  return a.reduce((sum, x, i) => sum + Math.abs(x - (b[i] ?? 0)), 0) / size;
}
