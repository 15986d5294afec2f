import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { ListJobsRequest, ListJobsResponse } from '../../src/gen/darkroom/v1/job_service.js';
import { operator } from '../../src/server/access/caller.js';
import { GenerateJob } from '../../src/server/jobs/generate-job.js';
import { JobStore } from '../../src/server/jobs/job-store.js';
import type { JobPlan } from '../../src/server/request/resolve.js';
import { released } from '../support/resolved.js';
import { outcomeOf, quick, type Serving, serve } from '../support/serving.js';

const MB = 1024 * 1024;

describe('an ended job', () => {
  const newJob = (id: string) => {
    const plan: JobPlan = {
      info: released.sdxl,
      request: {
        prompt: 'a kite',
        negativePrompt: undefined,
        width: 1024,
        height: 1024,
        steps: 1,
        guidanceScale: 1,
        scheduler: 'euler',
        seeds: [1],
        init: { rgb: new Uint8Array(3 * MB), strength: 0.5 },
        imagePrompt: { rgb: new Uint8Array(6 * MB), width: 2048, height: 1024, scale: 0.5 },
        video: {
          frames: 9,
          control: { file: new Uint8Array(10 * MB), ffmpeg: 'ffmpeg', fps: 16, frames: 5, scale: 1 },
        },
      },
      output: { format: 'png', metadata: 'full' },
      controls: [],
      samplingPreset: undefined,
      controlVideo: { source: { kind: 'url', url: 'https://a.test/pose.mp4' }, fps: 16 },
      references: {
        applied: { method: 'img2img', places: ['start'], problem: undefined },
        mode: 'single',
        start: { kind: 'bytes', bytes: new Uint8Array(20 * MB) },
        look: { kind: 'bytes', bytes: new Uint8Array(5 * MB) },
        strength: 0.5,
        denoisingStrength: 0.5,
      },
      prompt: 'a kite',
      isEnhanced: false,
    };
    return new GenerateJob({
      id,
      owner: '',
      requestHash: id,
      jobType: JobType.JOB_TYPE_UNSPECIFIED,
      model: 'sdxl',
      plan,
    });
  };

  it('holds neither its references nor the images that they were decoded to', () => {
    const job = newJob('a');
    expect(job.heldBytes).toBeGreaterThan(44 * MB);
    new JobStore({ maxJobs: 10, maxBytes: 64 * MB }).finish(job);
    expect(job.heldBytes).toBeLessThan(MB);
    const { init, imagePrompt, video } = job.request;
    const { references, controlVideo } = job.plan;
    expect([references, controlVideo, init, imagePrompt]).toEqual([undefined, undefined, undefined, undefined]);
    // What the metadata report stays.
    expect(video?.control).toMatchObject({ file: new Uint8Array(), frames: 5, scale: 1 });
  });

  it('counts against the retention with all that it holds', () => {
    const store = new JobStore({ maxJobs: 100, maxBytes: 10 * MB });
    for (let i = 0; i < 5; i += 1) {
      const job = newJob(`job-${i}`);
      store.add(job);
      const data = Buffer.alloc(4 * MB);
      job.emit({ $case: 'assetChunk', value: { index: 0, offset: 0n, data, asset: undefined } });
      store.finish(job);
    }
    expect(store.list(operator).map(({ id }) => id)).toEqual(['job-4', 'job-3']);
  });
});

describe('ListJobs', () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve();
    const prompt = 'a kite over a field, '.repeat(780);
    for (let i = 0; i < 40; i += 1) {
      await outcomeOf(serving.client, { ...quick, steps: 1, prompt, negativePrompt: prompt, jobId: `long-${i}` });
    }
  });
  afterAll(() => serving.stop());

  const list = (request: Partial<ListJobsRequest>) =>
    new Promise<ListJobsResponse>((resolve, reject) =>
      serving.client.jobs.listJobs(ListJobsRequest.fromPartial(request), (error, response) =>
        error ? reject(error) : resolve(response),
      ),
    );

  it('cuts long texts unless they are asked for', async () => {
    const [short] = (await list({ pageSize: 1 })).jobs;
    expect(short?.metadata?.originalPrompt).toHaveLength(256);
    expect(short?.metadata?.originalPrompt.endsWith('…')).toBe(true);
    const [long] = (await list({ pageSize: 1, fullTexts: true })).jobs;
    expect(long?.metadata?.originalPrompt.length).toBeGreaterThan(16_000);
  });

  it('bounds a page in bytes, and loses no job between pages', async () => {
    const ids: string[] = [];
    let pages = 0;
    for (let pageToken = ''; pages === 0 || pageToken !== ''; pages += 1) {
      const page = await list({ pageSize: 1000, pageToken, fullTexts: true });
      expect(ListJobsResponse.encode(page).finish().length).toBeLessThan(300 * 1024);
      ids.push(...page.jobs.map(({ jobId }) => jobId));
      pageToken = page.nextPageToken;
    }
    expect(ids).toEqual(Array.from({ length: 40 }, (_, i) => `long-${39 - i}`));
    expect(pages).toBeGreaterThan(1);
  });

  it('goes on at the same place if the last job of a page was evicted', async () => {
    const small = await serve({ JOB_RETENTION: '3' });
    try {
      const run = (jobId: string) => outcomeOf(small.client, { ...quick, steps: 1, jobId });
      const page = (request: Partial<ListJobsRequest>) =>
        new Promise<ListJobsResponse>((resolve, reject) =>
          small.client.jobs.listJobs(ListJobsRequest.fromPartial(request), (error, response) =>
            error ? reject(error) : resolve(response),
          ),
        );
      for (const id of ['a', 'b', 'c']) await run(id);
      const first = await page({ pageSize: 1 });
      expect(first.jobs.map(({ jobId }) => jobId)).toEqual(['c']);
      await run('d');
      const second = await page({ pageSize: 1, pageToken: first.nextPageToken });
      expect(second.jobs.map(({ jobId }) => jobId)).toEqual(['b']);
      expect(second.nextPageToken).toBe('');
      for (const id of ['e', 'f']) await run(id);
      // The job of the token is gone, and so are all jobs behind it.
      expect(await page({ pageToken: first.nextPageToken })).toEqual({ jobs: [], nextPageToken: '' });
      const newer = await page({ pageSize: 1 });
      await run('g');
      const rest = await page({ pageToken: newer.nextPageToken });
      expect(rest.jobs.map(({ jobId }) => jobId)).toEqual(['e']);
    } finally {
      await small.stop();
    }
  });
});
