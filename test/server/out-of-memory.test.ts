import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { Phase } from '../../src/gen/darkroom/v1/event.js';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { metadataOf, type Outcome, outcomeOf, quick, type Serving, serve } from '../support/serving.js';
import { writeTinyWan } from '../support/tiny-wan.js';

const golden = fileURLToPath(new URL('../fixtures/goldens/sdxl-lora/attn.kohya.safetensors', import.meta.url));
/** Memory of a device on which 1024x1024 decodes in tiles of 512 pixels, and does not as a whole. */
const ROOM_FOR_TILES = 300e6;
const large = { ...quick, width: 1024, height: 1024, steps: 1 };

let folder: string;
let serving: Serving;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  await copyFile(golden, join(folder, 'ink.safetensors'));
});
afterEach(() => serving.stop());
afterAll(() => rm(folder, { recursive: true }));

/** Mean difference of two images, of 255. */
async function difference(a: Outcome, b: Outcome): Promise<number> {
  const [x, y] = await Promise.all([a, b].map(({ files: [file] }) => sharp(file).raw().toBuffer()));
  if (x === undefined || y === undefined || x.length !== y.length) return Number.POSITIVE_INFINITY;
  return x.reduce((sum, value, i) => sum + Math.abs(value - (y[i] ?? 0)), 0) / x.length;
}

describe('an engine whose device runs out of memory', () => {
  it('decodes in tiles, says so, and runs the next job as ever', async () => {
    const roomy = await serve({ SDXL_PATH: inject('wholeSdxl') });
    const whole = await outcomeOf(roomy.client, large).finally(() => roomy.stop());
    expect(metadataOf(whole).memoryMeasures).toEqual([]);
    serving = await serve({ SDXL_PATH: inject('wholeSdxl') }, { memoryLimitBytes: ROOM_FOR_TILES });
    const before = await outcomeOf(serving.client, quick);
    const { pid } = serving.engine;
    const tiled = await outcomeOf(serving.client, large);
    expect(metadataOf(tiled).memoryMeasures).toEqual([expect.stringMatching(/^decoded_in_tiles_of_(512|256)_pixels$/)]);
    const after = await outcomeOf(serving.client, quick);
    expect(metadataOf(after).memoryMeasures).toEqual([]);
    expect(after.files).toEqual(before.files);
    expect(serving.engine.pid).toBe(pid);
    expect(await difference(tiled, whole)).toBeLessThan(6);
  });

  it('fails the job with OUT_OF_MEMORY where nothing helps, and lives', async () => {
    serving = await serve({ SDXL_PATH: inject('wholeSdxl') }, { memoryLimitBytes: 150e6 });
    const { pid } = serving.engine;
    const { error } = await outcomeOf(serving.client, { ...quick, width: 2048, height: 2048, steps: 1 });
    expect([error?.reason, error?.status, error?.retryable]).toEqual(['OUT_OF_MEMORY', 'RESOURCE_EXHAUSTED', false]);
    expect(error?.message).toMatch(/^Insufficient VRAM for generation/);
    expect((await outcomeOf(serving.client, quick)).files).toHaveLength(1);
    expect(serving.engine.pid).toBe(pid);
  });

  it('denoises less at once where the device is too small for the whole batch', async () => {
    serving = await serve({ SDXL_PATH: inject('wholeSdxl') }, { memoryLimitBytes: 60e6 });
    const request = { ...quick, width: 512, height: 512, numImages: 3, steps: 1, guidanceScale: 5 };
    const { memoryMeasures, batchImages } = metadataOf(await outcomeOf(serving.client, request));
    expect(batchImages).toBe(3);
    expect(memoryMeasures[0]).toMatch(/^denoised_[1-3]_at_once$/);
  });

  it('drops what is idle first: variants, and the language model', async () => {
    const variables = {
      SDXL_PATH: inject('wholeSdxl'),
      LORA_DIR: folder,
      QWEN_PATH: inject('tinyQwen'),
      MEMORY_RESERVE_BYTES: '0',
    };
    serving = await serve(variables, { memoryLimitBytes: 150e6 });
    await outcomeOf(serving.client, { ...quick, loras: [{ name: 'ink' }] });
    await new Promise<void>((resolve, reject) =>
      serving.client.models.loadModel({ name: 'qwen' }, (error) => (error ? reject(error) : resolve())),
    );
    expect(serving.textEngine?.isLoaded).toBe(true);
    const { memoryMeasures } = metadataOf(
      await outcomeOf(serving.client, { ...quick, width: 512, height: 512, steps: 1 }),
    );
    expect(memoryMeasures.slice(0, 2)).toEqual(['dropped_idle_variants', 'ended_language_model']);
    expect(serving.textEngine?.isLoaded).toBe(false);
  });

  it('decodes the frames of a video in tiles', async () => {
    serving = await serve({ WAN_PATH: await writeTinyWan(join(folder, 'wan'), 'BF16') }, { memoryLimitBytes: 100e6 });
    const jobType = JobType.JOB_TYPE_VIDEO_FAST;
    const clip = { ...quick, jobType, width: 512, height: 512, frames: 5, steps: 1 };
    const tiled = await outcomeOf(serving.client, clip);
    expect(metadataOf(tiled)).toMatchObject({ frames: 5, memoryMeasures: ['decoded_in_tiles_of_128_pixels'] });
    // Every frame is in the progress once, whatever the number of tiles.
    const decoded = tiled.events.flatMap(({ event }) =>
      event?.$case === 'progress' && event.value.phase === Phase.PHASE_DECODE ? [event.value.step] : [],
    );
    expect([decoded.at(-1), new Set(decoded)]).toEqual([2, new Set([0, 1, 2])]);
  });
});
