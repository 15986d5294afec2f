import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { ImageRequest, PipelineEvent } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/index.js';
import { endTokenIndex } from '../../src/pipelines/sdxl/prompt-encoder.js';
import { rgbFromImage } from '../../src/pipelines/sdxl/rgb.js';

const request: ImageRequest = {
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
  pipeline = await createSdxlPipeline({ path: inject('tinySdxl'), device: 'cpu', threads: 1 });
});
afterAll(() => pipeline.dispose());

async function run(changes: Partial<ImageRequest> = {}): Promise<{ events: PipelineEvent[]; pictures: Uint8Array[] }> {
  const events: PipelineEvent[] = [];
  for await (const event of pipeline.generate({ ...request, ...changes }, new AbortController().signal))
    events.push(event);
  return { events, pictures: events.flatMap((event) => (event.kind === 'image' ? [event.rgb] : [])) };
}

const encodes = (events: PipelineEvent[]) =>
  events.filter((event) => event.kind === 'progress' && event.phase === 'encode').length;

describe('SdxlPipeline', () => {
  it('runs the text encoders once for a prompt just seen', async () => {
    const prompt = 'a green field at noon';
    expect(encodes((await run({ prompt, negativePrompt: 'grain' })).events)).toBe(2);
    expect(encodes((await run({ prompt, negativePrompt: 'grain' })).events)).toBe(0);
    expect(encodes((await run({ prompt: `${prompt}!`, negativePrompt: 'grain' })).events)).toBe(1);
  });

  it('makes of every seed in a batch what it makes of it alone', async () => {
    const { pictures } = await run({ seeds: [5, 6, 7] });
    const { pictures: alone } = await run({ seeds: [6] });
    expect(pictures).toHaveLength(3);
    expect(pictures[1]).toEqual(alone[0]);
    expect(pictures[0]).not.toEqual(pictures[1]);
  });

  it('treats an absent negative prompt otherwise than an empty one', async () => {
    const { pictures: absent } = await run({ negativePrompt: undefined });
    const { pictures: empty } = await run({ negativePrompt: '' });
    expect(absent[0]).not.toEqual(empty[0]);
  });

  it.each([
    [56, 104],
    [72, 64],
    [8, 8],
  ])('takes %i by %i, where halving a side rounds up', async (width, height) => {
    const { pictures } = await run({ width, height });
    expect(pictures[0]).toHaveLength(width * height * 3);
  });

  it('ends between two runs when it is told to', async () => {
    const abort = new AbortController();
    const steps: number[] = [];
    const loop = async () => {
      for await (const event of pipeline.generate({ ...request, steps: 50 }, abort.signal)) {
        if (event.kind === 'progress' && event.phase === 'denoise') steps.push(event.step);
        if (steps.length === 3) abort.abort(new Error('enough'));
      }
    };
    await expect(loop()).rejects.toThrow('enough');
    expect(steps).toEqual([1, 2, 3]);
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
