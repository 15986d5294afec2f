import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { estimate as estimateOf } from '../../src/client/client.js';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { OutputFormat, OutputMetadata, Reference } from '../../src/gen/darkroom/v1/job.js';
import { WatchJobRequest } from '../../src/gen/darkroom/v1/job_service.js';
import { openBytes, type PlannedNetwork, sumMemory } from '../../src/pipelines/model-memory.js';
import { sdxl } from '../../src/pipelines/sdxl/family.js';
import { expectedDialects } from '../../src/runtime/precision.js';
import { kinds, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

let serving: Serving;
beforeAll(async () => {
  serving = await serve();
});
afterAll(() => serving.stop());

describe('files', () => {
  it.each([
    ['png', OutputFormat.OUTPUT_FORMAT_UNSPECIFIED, 'image/png'],
    ['webp', OutputFormat.OUTPUT_FORMAT_WEBP, 'image/webp'],
    ['jpeg', OutputFormat.OUTPUT_FORMAT_JPEG, 'image/jpeg'],
  ] as const)('are %s when asked for', async (format, outputFormat, contentType) => {
    const { events, files } = await outcomeOf(serving.client, { ...quick, outputFormat });
    const { event } = events.at(-1) ?? {};
    expect(event?.$case === 'completed' && event.value.assets[0]?.contentType).toBe(contentType);
    const { format: found, width, height } = await sharp(files[0]).metadata();
    expect([found, width, height]).toEqual([format, 64, 64]);
  });

  it('are smaller at a lower quality', async () => {
    const of = async (outputQuality: number) =>
      (await outcomeOf(serving.client, { ...quick, outputFormat: OutputFormat.OUTPUT_FORMAT_JPEG, outputQuality }))
        .files[0];
    expect((await of(30))?.length).toBeLessThan((await of(95))?.length ?? 0);
  });

  it('say what made them, or only that a model did, or nothing', async () => {
    const of = async (outputMetadata: OutputMetadata) =>
      String(
        (await outcomeOf(serving.client, { ...quick, prompt: 'a red kite', outputMetadata })).files[0]?.toString(
          'latin1',
        ),
      );
    const full = await of(OutputMetadata.OUTPUT_METADATA_UNSPECIFIED);
    expect(full).toContain('a red kite');
    expect(full).toContain('Steps: 2, Sampler: euler, CFG scale: 6, Seed: 1, Size: 64x64, Model: sdxl');
    expect(full).toContain('trainedAlgorithmicMedia');
    const provenance = await of(OutputMetadata.OUTPUT_METADATA_PROVENANCE);
    expect(provenance).toContain('trainedAlgorithmicMedia');
    expect(provenance).not.toContain('a red kite');
    const none = await of(OutputMetadata.OUTPUT_METADATA_NONE);
    expect(none).not.toMatch(/trainedAlgorithmicMedia|a red kite/);
  });
});

describe('previews', () => {
  it('come while the job runs and are forgotten once it ended', async () => {
    const request = { ...quick, jobId: 'previewed', steps: 30, previewsPerSecond: 4 };
    const { events } = await outcomeOf(serving.client, request);
    const previews = events.flatMap(({ event }) => (event?.$case === 'preview' ? [event.value] : []));
    expect(previews.length).toBeGreaterThan(0);
    const [{ contentType, image } = { contentType: '', image: Buffer.alloc(0) }] = previews;
    expect(contentType).toBe('image/jpeg');
    expect((await sharp(image).metadata()).format).toBe('jpeg');
    const again: string[] = [];
    const sequences: bigint[] = [];
    for await (const { event } of serving.client.jobs.watchJob(WatchJobRequest.fromPartial({ jobId: 'previewed' }))) {
      again.push(event.event.$case);
      sequences.push(event.sequence);
    }
    expect(again).toEqual(kinds(events).filter((kind) => kind !== 'preview'));
    // The first reader may have been too late for a preview, but its number is taken.
    expect(sequences.at(-1)).toBe(events.at(-1)?.sequence);
  });

  it('are not sent unasked', async () => {
    const { events } = await outcomeOf(serving.client, { ...quick, steps: 5 });
    expect(kinds(events)).not.toContain('preview');
  });
});

describe('Estimate', () => {
  const estimate = (request: Partial<GenerateRequest>) => estimateOf(serving.client, request);

  it('tells seconds and memory from what jobs took, and the sizes that would be used', async () => {
    await outcomeOf(serving.client, { ...quick, steps: 20 });
    const [short, long] = [await estimate({ ...quick, steps: 20 }), await estimate({ ...quick, steps: 200 })];
    expect([short.width, short.height, short.frames, short.denoisingSteps]).toEqual([64, 64, 0, 20]);
    expect(short.seconds).toBeGreaterThan(0);
    expect(long.seconds).toBeGreaterThan(5 * short.seconds);
    expect(Number(short.peakMemoryBytes)).toBeGreaterThan(50e6);
  });

  it('computes the memory of the device from the networks, at any size', async () => {
    const source = { path: inject('tinySdxl') };
    const requests = [
      [
        { width: 64, height: 64 },
        { width: 64, height: 64, frames: 1, rows: 2 },
      ],
      [
        { width: 128, height: 96, numImages: 3 },
        { width: 128, height: 96, frames: 1, rows: 6 },
      ],
      [
        { width: 256, height: 256, guidanceScale: 1 },
        { width: 256, height: 256, frames: 1, rows: 1 },
      ],
    ] as const;
    for (const [request, run] of requests) {
      const { deviceWeightBytes, devicePeakBytes } = await estimate({ ...quick, ...request });
      const networks = (await sdxl.planMemory?.(source, expectedDialects('cpu', 'auto'), run)) ?? [];
      const { weights, rest, largestInTurn } = sumMemory(networks);
      expect(Number(deviceWeightBytes)).toBe(weights);
      expect(Math.abs(Number(devicePeakBytes) / (rest + largestInTurn) - 1), JSON.stringify(run)).toBeLessThan(0.02);
    }
  });

  it('counts the encoder of the VAE once a job has a reference', async () => {
    const source = { path: inject('tinySdxl') };
    const image = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'red' } })
      .png()
      .toBuffer();
    const references = [Reference.fromPartial({ source: { $case: 'image', value: image } })];
    const [without, withOne] = [await estimate(quick), await estimate({ ...quick, references })];
    const run = { width: 64, height: 64, frames: 1, rows: 2 };
    const networks = (await sdxl.planMemory?.(source, expectedDialects('cpu', 'auto'), run)) ?? [];
    const encoder = networks.find(({ network }) => network === 'vae_encoder');
    expect(Number(withOne.devicePeakBytes - without.devicePeakBytes)).toBe(openBytes(encoder as PlannedNetwork));
  });

  it('queues nothing, and refuses what Generate refuses', async () => {
    await expect(estimate({ ...quick, width: 65 })).rejects.toMatchObject({
      message: 'Invalid parameters: width 65 must be a multiple of 8; use 64 or 72',
    });
    const { events } = await outcomeOf(serving.client, quick);
    expect(kinds(events)[0]).toBe('queued');
  });
});
