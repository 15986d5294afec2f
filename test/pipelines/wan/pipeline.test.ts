import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { planarFrames } from '../../../src/pipelines/common/frame-form.js';
import { imageFromRgb, rgbFromImage } from '../../../src/pipelines/common/rgb-image.js';
import { RunningJobs } from '../../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest, KnownImages, PipelineEvent } from '../../../src/pipelines/pipeline.js';
import { createWanPipeline, type WanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { encodePrompts } from '../../../src/pipelines/wan/prompt/encode-prompts.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { resultOf } from '../../support/result-of.js';

const size = { width: 64, height: 48 };
const request: GenerationRequest = {
  prompt: 'a kite over a field',
  negativePrompt: '',
  ...size,
  steps: 10,
  guidanceScale: 5,
  scheduler: 'flow_unipc',
  seeds: [3],
  video: { frames: 9, shift: 5 },
};

let pipeline: WanPipeline;
beforeAll(async () => {
  pipeline = await createWanPipeline({ path: inject('tinyWan'), backend: cpuBackend });
});
afterAll(() => pipeline.dispose());

async function run(
  changes: Partial<GenerationRequest> = {},
): Promise<{ events: PipelineEvent[]; frames: readonly Uint8Array[] }> {
  const events: PipelineEvent[] = [];
  const jobs = [{ request: { ...request, ...changes }, signal: new AbortController().signal }];
  for await (const event of pipeline.generate(jobs)) events.push(event);
  return { events, frames: events.flatMap((event) => (event.kind === 'frames' ? event.frames : [])) };
}

/** An image with a bright band. */
const banded = (row: number) =>
  Uint8Array.from({ length: size.width * size.height * 3 }, (_, i) =>
    Math.abs(Math.floor(i / 3 / size.width) - row) < 8 ? 220 : 40,
  );

const distance = (a: Uint8Array | undefined, b: Uint8Array | undefined) =>
  (a ?? new Uint8Array()).reduce((sum, value, i) => sum + Math.abs(value - (b?.[i] ?? 0)), 0) / (a?.length ?? 1);

/** What the VAE makes of images by itself: the nearest that a video can come to them. */
async function throughVae(frames: readonly Uint8Array[]): Promise<readonly Uint8Array[]> {
  const latents = await pipeline.networks.autoencoder.encodeLatents(
    frames.map((rgb) => imageFromRgb(rgb, size)),
    size,
  );
  const decoded: Uint8Array[] = [];
  for await (const { frames: chunk } of pipeline.networks.autoencoder.decodeChunks(planarFrames, latents, {
    ...size,
    frames: frames.length,
  }))
    decoded.push(...chunk.map((frame) => rgbFromImage(frame, size)));
  return decoded;
}

describe('WanPipeline', () => {
  it('flow_lcm draws the noise of its steps from the seed', async () => {
    const few = { scheduler: 'flow_lcm', steps: 4, guidanceScale: 1 } as const;
    const [once, twice, other] = [await run(few), await run(few), await run({ ...few, seeds: [4] })];
    expect(twice.frames).toEqual(once.frames);
    expect(other.frames).not.toEqual(once.frames);
    expect(once.events.at(-1)).toMatchObject({ kind: 'done', forwards: 4 });
  });

  it('makes the requested frames, the same for the same seed', async () => {
    const [once, twice, other] = [await run(), await run(), await run({ seeds: [4] })];
    expect(once.frames).toHaveLength(9);
    expect(once.frames[0]).toHaveLength(size.width * size.height * 3);
    expect(twice.frames).toEqual(once.frames);
    expect(distance(other.frames[8], once.frames[8])).toBeGreaterThan(1);
  });

  it('releases the text encoder after the prompts, and does not load it for cached prompts', async () => {
    const encodes = ({ events }: { events: PipelineEvent[] }) =>
      events.filter((event) => event.kind === 'progress' && event.phase === 'encode').length;
    expect(encodes(await run({ prompt: 'a boat at sea', steps: 1 }))).toBe(1);
    expect(encodes(await run({ prompt: 'a boat at sea', steps: 1 }))).toBe(0);
  });

  it('stops between two runs when cancelled, while it denoises and while it decodes', async () => {
    for (const [phase, at] of [
      ['denoise', 3],
      ['decode', 2],
    ] as const) {
      const abort = new AbortController();
      const seen: PipelineEvent[] = [];
      for await (const event of pipeline.generate([{ request, signal: abort.signal }])) {
        seen.push(event);
        if (event.kind === 'progress' && event.phase === phase && event.step === at) abort.abort();
      }
      expect(seen.at(-1)?.kind).toBe('aborted');
      const steps = seen.filter((event) => event.kind === 'progress' && event.phase === phase);
      expect(steps).toHaveLength(at);
    }
  });
});

/** Latents [16, F, h, w] of the request's video at the end of its loop. */
async function denoised(held?: Omit<KnownImages, 'method'>): Promise<{ latents: Float32Array }> {
  const video = { frames: 9, shift: 5, ...(held && { known: { method: 'latent_hold' as const, ...held } }) };
  const running = new RunningJobs([{ request: { ...request, video }, signal: new AbortController().signal }]);
  const texts = (await resultOf(encodePrompts(0, request, running, pipeline.networks.prompts))) ?? [];
  const denoised = await resultOf(pipeline.denoise(0, { ...request, video }, texts, running));
  return { latents: denoised?.latents ?? new Float32Array() };
}

/** One frame [16, h, w] of latents [16, F, h, w]. */
function frameOf(latents: Float32Array, frame: number, frames: number): Float32Array {
  const plane = latents.length / 16 / frames;
  return Float32Array.from({ length: 16 * plane }, (_, i) => {
    return latents[(Math.floor(i / plane) * frames + frame) * plane + (i % plane)] ?? 0;
  });
}

const farthest = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? Number.NaN))), 0);

describe('held frames', () => {
  const held = (frames: Omit<KnownImages, 'method'>) =>
    run({ video: { frames: 9, shift: 5, known: { method: 'latent_hold', ...frames } } });

  it('at full strength return as the first frame, as the VAE reconstructs it', async () => {
    const start = banded(10);
    const [kept] = await throughVae([start]);
    const [{ frames }, { frames: free }] = [await held({ start, end: banded(38), strength: 1 }), await run()];
    expect(distance(frames[0], kept)).toBeLessThan(1);
    expect(distance(free[0], kept)).toBeGreaterThan(10);
  });

  // What the last frame looks like depends on the ones before it too; with made-up weights its latent is what can be measured.
  it('at full strength are the first and the last latent of the video', async () => {
    const [start, end] = [banded(10), banded(38)];
    const { latents } = await denoised({ start, end, strength: 1 });
    const { latents: free } = await denoised();
    const stillEnd = Array.from({ length: 5 }, () => imageFromRgb(end, size));
    const [first, still] = [
      await pipeline.networks.autoencoder.encodeLatents([imageFromRgb(start, size)], size),
      await pipeline.networks.autoencoder.encodeLatents(stillEnd, size),
    ];
    expect(farthest(frameOf(latents, 0, 3), first)).toBeLessThan(1e-5);
    expect(farthest(frameOf(latents, 2, 3), frameOf(still, 1, 2))).toBeLessThan(1e-5);
    expect(farthest(frameOf(free, 2, 3), frameOf(still, 1, 2))).toBeGreaterThan(0.1);
  });

  it('are matched more closely the longer they are held', async () => {
    const start = banded(24);
    const [kept] = await throughVae([start]);
    const distances: number[] = [];
    for (const strength of [0.2, 0.6, 1]) distances.push(distance((await held({ start, strength })).frames[0], kept));
    expect(distances).toEqual([...distances].sort((a, b) => b - a));
    expect(distances[2]).toBeLessThan(distances[0] ?? 0);
  });

  it('leave the other latents free: an end frame alone does not fix the start', async () => {
    const { frames } = await held({ end: banded(24), strength: 1 });
    const { frames: free } = await run();
    expect(distance(frames[8], free[8])).toBeGreaterThan(1);
  });
});
