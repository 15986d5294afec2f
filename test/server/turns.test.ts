import { afterEach, describe, expect, it } from 'vitest';
import { JobType, OutputMetadata } from '../../src/gen/darkroom/v1/job.js';
import { completed, metadataOf, outcomeOf, type Serving, serve, until } from '../support/serving.js';

let serving: Serving;
afterEach(() => serving.stop());

const bare = { prompt: 'a red circle', seed: 1n, outputMetadata: OutputMetadata.OUTPUT_METADATA_NONE };
const image = { ...bare, width: 128, height: 128, steps: 12 };
const clip = { ...bare, jobType: JobType.JOB_TYPE_VIDEO_FAST, width: 64, height: 64, frames: 9, steps: 150 };

describe('two engines on one device', () => {
  it('with images first, an image starts within a step of the clip, which stands still for it and comes out the same', async () => {
    serving = await serve({ GPU_TURNS: 'images-first' }, { withWan: true });
    const alone = await outcomeOf(serving.client, clip);
    let steps = 0;
    const rendering = outcomeOf(serving.client, clip, {
      onEvent: ({ event }) => {
        if (event?.$case === 'progress') steps += 1;
      },
    });
    await until(() => steps > 20);
    const seen: number[] = [];
    const outcome = await outcomeOf(serving.client, image, {
      onEvent: ({ event }) => {
        if (event?.$case === 'progress') seen.push(steps);
      },
    });
    expect(outcome.files).toHaveLength(1);
    // From the image's first run to its last one: steps that were done already may still be on their way.
    expect((seen.at(-1) ?? 0) - (seen[0] ?? 0)).toBeLessThanOrEqual(2);
    const { files } = await rendering;
    expect(steps).toBeGreaterThan(seen.at(-1) ?? 0);
    expect(files).toEqual(alone.files);
  });

  it('an engine that dies in its turn does not hold up the other', async () => {
    serving = await serve({ GPU_TURNS: 'images-first' }, { withWan: true });
    const abort = new AbortController();
    let isRunning = false;
    const dying = outcomeOf(
      serving.client,
      { ...image, width: 512, height: 512, steps: 1000 },
      {
        signal: abort.signal,
        onEvent: ({ event }) => {
          isRunning ||= event?.$case === 'progress' && event.value.step > 1;
        },
      },
    );
    await until(() => isRunning);
    const waiting = outcomeOf(serving.client, { ...clip, steps: 5 });
    process.kill(serving.engine.pid ?? 0, 'SIGKILL');
    expect((await dying).error?.reason).toBe('ENGINE_CRASHED');
    expect(metadataOf(await waiting).frames).toBe(9);
  });

  it('both end their jobs when they share the device fairly', async () => {
    serving = await serve({ GPU_TURNS: 'fair' }, { withWan: true });
    const jobs = [clip, image, { ...clip, steps: 5 }, image].map((request) => outcomeOf(serving.client, request));
    for (const outcome of await Promise.all(jobs)) expect(completed(outcome).assets.length).toBeGreaterThan(0);
  });
});
