import { createHash } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { type Job, JobState, JobType } from '../../src/gen/darkroom/v1/job.js';
import { ListJobsRequest, type ListJobsResponse } from '../../src/gen/darkroom/v1/job_service.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { kinds, outcomeOf, quick, type Serving, serve } from '../support/serving.js';

let serving: Serving;
beforeAll(async () => {
  serving = await serve();
});
afterAll(() => serving.stop());

const LORAS = [{ name: 'ink', weight: 1, textEncoderWeight: undefined }];

describe('Generate', () => {
  it('streams queued, started, progress, chunks and completed, numbered from 1', async () => {
    const { events, files, error } = await outcomeOf(serving.client, { ...quick, width: 512, height: 512 });
    expect(error).toBeUndefined();
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, i) => BigInt(i + 1)));
    expect(kinds(events)).toEqual([
      'queued',
      'started',
      'progress',
      'progress',
      'progress',
      'progress',
      'assetChunk',
      'assetChunk',
      'assetChunk',
      'completed',
    ]);
    const chunks = events.flatMap(({ event }) => (event?.$case === 'assetChunk' ? [event.value] : []));
    expect(chunks.map(({ offset, data }) => [Number(offset), data.length])).toEqual([
      [0, 262144],
      [262144, 262144],
      [524288, (files[0]?.length ?? 0) - 524288],
    ]);
    expect(chunks.map(({ asset }) => asset === undefined)).toEqual([true, true, false]);
    const asset = chunks[2]?.asset;
    expect(asset?.sha256).toEqual(
      createHash('sha256')
        .update(files[0] ?? '')
        .digest(),
    );
    expect(asset).toMatchObject({
      contentType: 'image/png',
      width: 512,
      height: 512,
      seed: 1n,
      sizeBytes: BigInt(files[0]?.length ?? 0),
    });
    const fractions = events.flatMap(({ event }) => (event?.$case === 'progress' ? [event.value.fraction] : []));
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(fractions.at(-1)).toBe(1);
  });

  it('gives the picture that the pipeline makes of the same request', async () => {
    const { files } = await outcomeOf(serving.client, { ...quick, negativePrompt: 'blurry', numImages: 3, seed: 40n });
    const pipeline = await createSdxlPipeline({ path: inject('tinySdxl'), backend: cpuBackend });
    const request = {
      prompt: 'a red circle',
      negativePrompt: 'blurry',
      width: 64,
      height: 64,
      steps: 2,
      guidanceScale: 6,
      scheduler: 'euler',
      seeds: [40, 41, 42],
    };
    const pictures: Uint8Array[] = [];
    for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }]))
      if (event.kind === 'image') pictures.push(event.rgb);
    await pipeline.dispose();
    const decoded = await Promise.all(files.map(async (file) => new Uint8Array(await sharp(file).raw().toBuffer())));
    expect(decoded).toEqual(pictures);
  });

  it('tells what was really done', async () => {
    const { events } = await outcomeOf(serving.client, {
      prompt: 'a house',
      jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST,
    });
    const { event } = events.at(-1) ?? {};
    if (event?.$case !== 'completed') throw new Error('not completed');
    expect(event.value.metadata).toMatchObject({
      jobType: JobType.JOB_TYPE_SDXL_IMAGE_FAST,
      model: 'sdxl',
      width: 64,
      height: 64,
      steps: 15,
      guidanceScale: 6,
      scheduler: 'euler',
      numImages: 1,
      device: 'cpu',
      negativePrompt: 'blurry, low quality, deformed, watermark, text',
    });
    expect(event.value.metadata?.generationSeconds).toBeGreaterThan(0);
  });

  it('answers bad fields all at once, as BadRequest', async () => {
    const { error, events } = await outcomeOf(serving.client, {
      ...quick,
      width: 1025,
      steps: 0,
      numImages: 2,
      scheduler: 'euler_ancestrl',
    });
    expect(events).toEqual([]);
    expect(error?.status).toBe('INVALID_ARGUMENT');
    expect(error?.violations.map(({ field }) => field)).toEqual(['width', 'steps', 'scheduler', 'num_images']);
    expect(error?.violations[2]?.description).toMatch(
      /^scheduler "euler_ancestrl" is not known; the nearest are euler_ancestral, .*, and ListModels has all \d+$/,
    );
  });

  it.each([
    ['an unknown model', { model: 'dall-e' }, 'NOT_FOUND', 'model "dall-e" is not served; this server has: sdxl'],
    [
      'a refused prompt',
      { prompt: 'an explicit child' },
      'FAILED_PRECONDITION',
      'the prompt is refused: sexual content involving minors is never generated',
    ],
    [
      'a LoRA where there is none',
      { loras: LORAS },
      'NOT_FOUND',
      'LoRA "ink" is not known; this server has none for the model',
    ],
    [
      'a prompt of 1 MB',
      { prompt: 'x'.repeat(2 ** 20) },
      'INVALID_ARGUMENT',
      'Invalid parameters: prompt of 1048576 bytes must be <= 16384; shorten it or raise LIMIT_PROMPT_BYTES',
    ],
  ] as const)('refuses %s', async (_, changes, status, message) => {
    const { error } = await outcomeOf(serving.client, { ...quick, ...changes });
    expect([error?.status, error?.message]).toEqual([status, message]);
  });

  it('takes an empty prompt', async () => {
    expect((await outcomeOf(serving.client, { ...quick, prompt: '' })).files).toHaveLength(1);
  });

  it('takes a job id as idempotency key: same body, same job; other body, ALREADY_EXISTS', async () => {
    const request = { ...quick, jobId: 'once', steps: 20, seed: undefined };
    const [first, second] = await Promise.all([outcomeOf(serving.client, request), outcomeOf(serving.client, request)]);
    const later = await outcomeOf(serving.client, request);
    expect(second.events).toEqual(first.events);
    expect(later.events).toEqual(first.events);
    const { error } = await outcomeOf(serving.client, { ...request, steps: 21 });
    expect([error?.status, error?.reason]).toEqual(['ALREADY_EXISTS', 'JOB_ID_CONFLICT']);
    expect(serving.engine.restarts).toBe(0);
  });
});

describe('JobService', () => {
  const ask = () => serving.client.jobs;
  const list = (request: Partial<ListJobsRequest>) =>
    new Promise<ListJobsResponse>((resolve, reject) =>
      ask().listJobs(ListJobsRequest.fromPartial(request), (error, response) =>
        error ? reject(error) : resolve(response),
      ),
    );
  const get = (jobId: string) =>
    new Promise<Job | undefined>((resolve, reject) =>
      ask().getJob({ jobId }, (error, response) => (error ? reject(error) : resolve(response.job))),
    );
  const cancel = (jobId: string) =>
    new Promise<Job | undefined>((resolve, reject) =>
      ask().cancelJob({ jobId }, (error, response) => (error ? reject(error) : resolve(response.job))),
    );

  it('lists jobs newest first, in pages, by state', async () => {
    for (const jobId of ['list-1', 'list-2', 'list-3']) await outcomeOf(serving.client, { ...quick, jobId });
    const first = await list({ pageSize: 2, pageToken: '', states: [] });
    expect(first.jobs.map(({ jobId }) => jobId)).toEqual(['list-3', 'list-2']);
    const second = await list({ pageSize: 1, pageToken: first.nextPageToken, states: [JobState.JOB_STATE_COMPLETED] });
    expect(second.jobs.map(({ jobId }) => jobId)).toEqual(['list-1']);
    await expect(list({ pageSize: 1001, pageToken: '', states: [] })).rejects.toThrow(
      'page_size 1001 must be >= 0 and <= 1000; 0 takes 100',
    );
  });

  it.each([{ pageToken: 'zzz' }, { pageToken: 'list-1' }, { pageToken: '00000000-1' }])(
    'refuses a page token that it did not send: %o',
    async (request) => {
      const error = await list(request).catch((caught: unknown) => caught);
      expect(error).toMatchObject({
        code: status.INVALID_ARGUMENT,
        details: `page_token "${request.pageToken}" must be a next_page_token that the server sent since it started; send it empty to begin again`,
      });
    },
  );

  it.each([[JobState.JOB_STATE_UNSPECIFIED], [JobState.JOB_STATE_COMPLETED, 99 as JobState]])(
    'refuses states that no job has: %o %o',
    async (...states) => {
      const at = states.length - 1;
      const error = await list({ states }).catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: status.INVALID_ARGUMENT });
      expect((error as Error).message).toContain(`states[${at}] ${states[at]} must be a state of jobs`);
    },
  );

  it('refuses an empty job id', async () => {
    const watch = async () => {
      for await (const _ of ask().watchJob({ jobId: '', afterSequence: 0n }));
    };
    for (const call of [() => get(''), () => cancel(''), watch]) {
      const error = await call().catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: status.INVALID_ARGUMENT });
      expect((error as Error).message).toContain('job_id must be set: the id of the job');
    }
  });

  it('tells a job that ended, and NOT_FOUND for one that never was', async () => {
    const { events } = await outcomeOf(serving.client, { ...quick, jobId: 'known' });
    const job = await get('known');
    expect(job).toMatchObject({
      state: JobState.JOB_STATE_COMPLETED,
      fraction: 1,
      lastSequence: BigInt(events.length),
    });
    expect(job?.assets).toHaveLength(1);
    await expect(get('never')).rejects.toThrow('job_id "never" is not known');
  });

  it('watches on after a sequence number', async () => {
    const { events } = await outcomeOf(serving.client, { ...quick, jobId: 'watched' });
    const rest = [];
    for await (const { event } of serving.client.jobs.watchJob({ jobId: 'watched', afterSequence: 5n }))
      rest.push(event);
    expect(rest).toEqual(events.slice(5));
  });

  it('cancels a finished job without effect', async () => {
    await outcomeOf(serving.client, { ...quick, jobId: 'finished' });
    const job = await cancel('finished');
    expect(job?.state).toBe(JobState.JOB_STATE_COMPLETED);
  });
});
