import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { resizeRgb } from '../../../src/media/resize-rgb.js';
import type { GenerationRequest, PipelineEvent, RequestUpscale } from '../../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { writeSyntheticUpscaler } from '../../../src/synthetic/upscaler.js';
import { cpuBackend } from '../../support/cpu-backend.js';

const SIZE = { width: 64, height: 48 };
const LARGE = { width: 128, height: 96 };

let folder: string;
let pipeline: SdxlPipeline;
let network: RequestUpscale['method'];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  const path = join(folder, 'tiny.safetensors');
  await writeSyntheticUpscaler(path, 'upscaler-tiny');
  network = { name: 'tiny', path, revision: '1', bytes: 0 };
  pipeline = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
});
afterAll(async () => {
  await pipeline.dispose();
  await rm(folder, { recursive: true });
});

const request = (more: Partial<GenerationRequest> = {}): GenerationRequest => ({
  ...{ prompt: 'a red circle', negativePrompt: undefined, ...SIZE, steps: 3, guidanceScale: 5 },
  ...{ scheduler: 'euler_ancestral', seeds: [3, 4] },
  ...more,
});
const upscale = (more: Partial<RequestUpscale> = {}): RequestUpscale => ({
  ...{ method: 'lanczos', factor: 2, ...LARGE, strength: 0.7, steps: 4 },
  ...more,
});

async function eventsOf(...requests: readonly GenerationRequest[]): Promise<readonly PipelineEvent[]> {
  const events: PipelineEvent[] = [];
  const jobs = requests.map((each) => ({ request: each, signal: new AbortController().signal }));
  for await (const event of pipeline.generate(jobs)) events.push(event);
  return events;
}
const imagesIn = (events: readonly PipelineEvent[], job = 0) =>
  events
    .flatMap((event) => (event.kind === 'image' && event.job === job ? [event] : []))
    .sort((a, b) => a.index - b.index);

describe('an image that is enlarged', () => {
  it('is what two requests make: the second draws the enlarged image of the first again', async () => {
    const small = imagesIn(await eventsOf(request()));
    const both = imagesIn(await eventsOf(request({ upscale: upscale() })));
    expect(both.map(({ seed, width, height }) => [seed, width, height])).toEqual([
      [3, 128, 96],
      [4, 128, 96],
    ]);
    for (const [i, { rgb, seed }] of small.entries()) {
      const init = { rgb: await resizeRgb(rgb, SIZE, LARGE), strength: 0.7 };
      const [alone] = imagesIn(await eventsOf(request({ ...LARGE, steps: 4, seeds: [seed], init })));
      expect(Buffer.compare(both[i]?.rgb ?? Buffer.alloc(0), alone?.rgb ?? Buffer.alloc(1))).toBe(0);
    }
  });

  it('is only enlarged with a strength of 0', async () => {
    const [small] = imagesIn(await eventsOf(request({ seeds: [3] })));
    const [large] = imagesIn(await eventsOf(request({ seeds: [3], upscale: upscale({ strength: 0 }) })));
    expect(large?.rgb).toEqual(await resizeRgb(small?.rgb ?? new Uint8Array(), SIZE, LARGE));
  });

  it.each([
    ['by its latents', () => upscale({ method: 'latent' })],
    ['by a network', () => upscale({ method: network })],
    ['by a network alone', () => upscale({ method: network, strength: 0 })],
  ] as const)('goes on %s, and its progress ends at its total', async (_, how) => {
    const events = await eventsOf(request({ upscale: how() }));
    const progress = (phase: string) =>
      events.flatMap((event) => (event.kind === 'progress' && event.phase === phase ? [event] : []));
    for (const phase of ['denoise', 'decode']) {
      const all = progress(phase);
      expect(all.length).toBeGreaterThan(0);
      expect(new Set(all.map(({ total }) => total)).size).toBe(1);
      expect(all.map(({ step }) => step)).toEqual(all.map(({ step }) => step).sort((a, b) => a - b));
      expect(all.at(-1)?.step).toBe(all.at(-1)?.total);
    }
    expect(imagesIn(events).map(({ width, height, index }) => [width, height, index])).toEqual([
      [128, 96, 0],
      [128, 96, 1],
    ]);
    expect(events.filter(({ kind }) => kind === 'done')).toHaveLength(1);
  });

  it('runs beside one that is not, and beside one of another size', async () => {
    const jobs = [
      request({ upscale: upscale() }),
      request({ seeds: [9] }),
      request({ seeds: [7], upscale: upscale({ width: 96, height: 80 }) }),
    ];
    const together = await eventsOf(...jobs);
    for (const [i, job] of jobs.entries()) {
      const alone = imagesIn(await eventsOf(job));
      expect(imagesIn(together, i).map(({ width, rgb }) => [width, Buffer.from(rgb).toString('base64')])).toEqual(
        alone.map(({ width, rgb }) => [width, Buffer.from(rgb).toString('base64')]),
      );
    }
  });

  it('ends in its second pass when it is cancelled', async () => {
    const abort = new AbortController();
    const events: PipelineEvent[] = [];
    for await (const event of pipeline.generate([{ request: request({ upscale: upscale() }), signal: abort.signal }])) {
      events.push(event);
      if (event.kind === 'progress' && event.phase === 'denoise' && event.step > 6) abort.abort();
    }
    expect(events.at(-1)?.kind).toBe('aborted');
    expect(imagesIn(events)).toEqual([]);
  });
});
