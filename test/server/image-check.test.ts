import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, inject, it } from 'vitest';
import type { JobEvent } from '../../src/gen/darkroom/v1/event.js';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { Graph } from '../../src/graph/graph.js';
import { kinds, type Outcome, outcomeOf, quick, serve, slow } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

/** Side of the classifier's input, in pixels. */
const SIDE = 8;
const settings = { size: SIDE, activation: 'none', labels: ['red', 'green', 'blue'], refuse: { red: 2 } };
const clip: Partial<GenerateRequest> = {
  prompt: 'a red circle',
  jobType: JobType.JOB_TYPE_VIDEO_FAST,
  width: 64,
  height: 64,
  steps: 2,
  frames: 9,
  seed: 1n,
};

/** A classifier whose scores are the mean red, green and blue, or their square roots. */
async function classifier(changes: object = {}, { isRoot = false } = {}): Promise<string> {
  const graph = new Graph('mean-colour', { attention: 'decomposed', compute: 'f32' });
  const image = graph.input('pixels', 'f32', [1, 3, SIDE, SIDE]);
  const axes = graph.constant(BigInt64Array.of(2n, 3n), [2]);
  const mean = graph.node('ReduceMean', [image, axes], [1, 3], { attributes: { keepdims: 0 } });
  graph.output('scores', isRoot ? graph.node('Sqrt', [mean], [1, 3]) : mean);
  const path = join(await tempFolder(), 'check.onnx');
  await writeFile(path, graph.encode(String));
  await writeFile(path.replace('.onnx', '.json'), JSON.stringify({ ...settings, ...changes }));
  return path;
}

async function outcome(
  variables: Parameters<typeof serve>[0],
  request: Partial<GenerateRequest> = quick,
): Promise<Outcome> {
  const serving = await serve(variables);
  try {
    return await outcomeOf(serving.client, request);
  } finally {
    await serving.stop();
  }
}

const meanRed = async (file: Uint8Array) => ((await sharp(file).stats()).channels[0]?.mean ?? 0) / 255;

describe('the check of decoded images', () => {
  it('refuses an image at its threshold, before anything of it leaves the engine', async () => {
    const passed = await outcome({ POLICY_IMAGE_MODEL: await classifier() }, { ...quick, previewsPerSecond: 4 });
    expect([passed.error, passed.files.length]).toEqual([undefined, 1]);
    const red = await meanRed(passed.files[0] as Buffer);
    const refused = await outcome(
      { POLICY_IMAGE_MODEL: await classifier({ refuse: { red: red - 0.02 } }) },
      { ...quick, previewsPerSecond: 4 },
    );
    expect(refused.error).toMatchObject({
      reason: 'POLICY',
      message: "the image is refused: this server's policy does not allow it",
    });
    expect(kinds(refused.events)).not.toContain('assetChunk');
    expect(kinds(refused.events)).not.toContain('preview');
    const below = await outcome({ POLICY_IMAGE_MODEL: await classifier({ refuse: { red: red + 0.02 } }) }, quick);
    expect(below.error).toBeUndefined();
  });

  it('ends a job of several images at the first refused one, and serves the next job', async () => {
    const serving = await serve({
      POLICY_IMAGE_MODEL: await classifier({ refuse: { red: -1 } }),
      BATCH_PIXELS: '4096',
    });
    try {
      for (const seed of [1n, 2n]) {
        const { error, files: sent } = await outcomeOf(serving.client, { ...quick, seed, numImages: 3 });
        expect([error?.reason, sent]).toEqual(['POLICY', []]);
      }
      expect(serving.engine.state).toBe('ready');
    } finally {
      await serving.stop();
    }
  });

  it('refuses a job of a batch once: it is not drawn again', async () => {
    const serving = await serve({ POLICY_IMAGE_MODEL: await classifier({ refuse: { red: -1 } }) });
    try {
      const abort = new AbortController();
      const isBusy = new Promise<void>((resolve) => {
        const onEvent = ({ event }: JobEvent) => event?.$case === 'progress' && resolve();
        void outcomeOf(serving.client, { ...slow, width: 512, height: 512 }, { signal: abort.signal, onEvent });
      });
      await isBusy;
      const together = [1n, 2n].map((seed) => outcomeOf(serving.client, { ...quick, seed }));
      await new Promise((resolve) => setTimeout(resolve, 300));
      abort.abort();
      for (const { error, events } of await Promise.all(together)) {
        expect(error?.reason).toBe('POLICY');
        expect(kinds(events).filter((kind) => kind === 'started')).toHaveLength(1);
      }
    } finally {
      await serving.stop();
    }
  });

  it.each([
    ['closed', 'POLICY_UNAVAILABLE', 0],
    ['open', undefined, 1],
  ] as const)('fails %s where an image cannot be checked', async (POLICY_IMAGE_FAIL, reason, sent) => {
    // Square roots of values below zero.
    const path = await classifier({ mean: [9, 9, 9] }, { isRoot: true });
    const { error, files: got } = await outcome({ POLICY_IMAGE_MODEL: path, POLICY_IMAGE_FAIL });
    expect([error?.reason, got.length]).toEqual([reason, sent]);
  });

  it('checks frames of a video, and returns none of it where one is refused', async () => {
    const wan = { WAN_PATH: inject('tinyWan'), POLICY_IMAGE_FRAMES: '3' };
    const passed = await outcome({ ...wan, POLICY_IMAGE_MODEL: await classifier() }, clip);
    expect([passed.error, passed.files.length]).toEqual([undefined, 3]);
    const refused = await outcome({ ...wan, POLICY_IMAGE_MODEL: await classifier({ refuse: { red: -1 } }) }, clip);
    expect([refused.error?.reason, refused.files]).toEqual(['POLICY', []]);
  });

  it.each([
    [
      'settings that do not fit',
      { refuse: { violet: 1 }, std: [0, 1, 1] },
      /std must be > 0.*refuse must name labels/s,
    ],
    [
      'another number of labels',
      { labels: ['red', 'green'] },
      /its output is float32 \[1,3\], and 2 float32 are needed/,
    ],
    ['another size', { size: 16 }, /the image classifier .* cannot be used/],
  ])('does not start with %s', async (_, changes, message) => {
    const serving = await serve({ POLICY_IMAGE_MODEL: await classifier(changes) }, { startsLater: true });
    try {
      await expect(serving.engine.start()).rejects.toThrow(message);
    } finally {
      await serving.stop();
    }
  });
});
