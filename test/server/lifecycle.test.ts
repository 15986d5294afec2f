import { credentials, status } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { connect, serverStatus } from '../../src/client/client.js';
import { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { DisconnectPolicy, type Job, JobState } from '../../src/gen/darkroom/v1/job.js';
import {
  HealthCheckResponse_ServingStatus as Health,
  type HealthCheckResponse,
  HealthClient,
} from '../../src/gen/grpc/health/v1/health.js';
import { kinds, outcomeOf, quick, type Serving, serve, slow, until } from '../support/serving.js';

let serving: Serving;
afterEach(() => serving.stop());

const getJob = (jobId: string) =>
  new Promise<Job | undefined>((resolve) =>
    serving.client.jobs.getJob({ jobId }, (_, response) => resolve(response?.job)),
  );
const cancelJob = (jobId: string) =>
  new Promise<Job | undefined>((resolve, reject) =>
    serving.client.jobs.cancelJob({ jobId }, (error, response) => (error ? reject(error) : resolve(response.job))),
  );
const stateOf = async (jobId: string) => (await getJob(jobId))?.state;

function health(): { check(): Promise<HealthCheckResponse>; watch: HealthClient['watch']; close(): void } {
  const client = new HealthClient(`127.0.0.1:${serving.server.port}`, credentials.createInsecure());
  return {
    check: () =>
      new Promise((resolve, reject) =>
        client.check({ service: '' }, (error, response) => (error ? reject(error) : resolve(response))),
      ),
    watch: client.watch.bind(client),
    close: () => client.close(),
  };
}

describe('a full queue', () => {
  it('takes 64 of 200 calls at most, refuses the rest at once with RetryInfo, and ends every accepted one with its picture', async () => {
    serving = await serve({ LIMIT_QUEUE: '64' });
    const alone = new Map<bigint, Buffer>();
    for (const seed of [1n, 2n, 3n, 4n])
      alone.set(seed, (await outcomeOf(serving.client, { ...quick, seed })).files[0] ?? Buffer.alloc(0));
    // One job holds the engine, so that nothing leaves the queue while the calls arrive.
    const holder = outcomeOf(serving.client, { ...slow, jobId: 'holder' });
    await until(async () => (await stateOf('holder')) === JobState.JOB_STATE_RUNNING);
    let refusals = 0;
    const calls = Array.from({ length: 200 }, async (_, i) => {
      const seed = BigInt((i % 4) + 1);
      const outcome = await outcomeOf(serving.client, { ...quick, seed });
      if (outcome.error !== undefined) refusals += 1;
      return { ...outcome, seed };
    });
    await until(() => refusals === 137);
    await cancelJob('holder');
    expect((await holder).error?.reason).toBe('CANCELLED');
    const outcomes = await Promise.all(calls);
    const accepted = outcomes.filter(({ error }) => error === undefined);
    const refused = outcomes.flatMap(({ error }) => error ?? []);
    expect(accepted).toHaveLength(63);
    for (const error of refused) {
      expect([error.status, error.reason]).toEqual(['RESOURCE_EXHAUSTED', 'QUEUE_FULL']);
      expect(error.retryAfterMs).toBeGreaterThan(0);
    }
    for (const { files, seed } of accepted) expect(files[0]?.equals(alone.get(seed) ?? Buffer.alloc(1))).toBe(true);
  });

  it('tells waiting jobs their place, and gives the place of one that leaves to the next', async () => {
    serving = await serve();
    const running = outcomeOf(serving.client, { ...slow, jobId: 'running' });
    await until(async () => (await stateOf('running')) === JobState.JOB_STATE_RUNNING);
    const leave = new AbortController();
    const leaving = outcomeOf(serving.client, { ...quick, jobId: 'leaving' }, { signal: leave.signal });
    await until(async () => (await stateOf('leaving')) === JobState.JOB_STATE_QUEUED);
    const waiting = outcomeOf(serving.client, { ...quick, jobId: 'waiting' });
    await until(async () => (await getJob('waiting'))?.queuePosition === 2);
    leave.abort();
    await until(async () => (await getJob('waiting'))?.queuePosition === 1);
    expect(await stateOf('leaving')).toBe(JobState.JOB_STATE_CANCELLED);
    await cancelJob('running');
    expect((await running).error?.status).toBe('CANCELLED');
    expect((await leaving).error?.status).toBe('CANCELLED');
    const positions = (await waiting).events.flatMap(({ event }) =>
      event?.$case === 'queued' ? [event.value.position] : [],
    );
    expect(positions).toEqual([2, 1]);
    expect((await waiting).files).toHaveLength(1);
  });
});

describe('a blocked engine', () => {
  it('leaves health and CancelJob answering at once, and the job ends cancelled', async () => {
    serving = await serve({ CANCEL_BOUND_MS: '300' });
    const job = outcomeOf(serving.client, { ...slow, steps: 1, jobId: 'blocked' });
    // The only step is done: its decode is one long run.
    await until(async () => ((await getJob('blocked'))?.fraction ?? 0) >= 0.9);
    const probe = health();
    expect((await probe.check()).status).toBe(Health.SERVING);
    probe.close();
    const answered = await cancelJob('blocked');
    expect(answered?.state).toBe(JobState.JOB_STATE_RUNNING);
    expect((await job).error?.reason).toBe('CANCELLED');
    expect(await stateOf('blocked')).toBe(JobState.JOB_STATE_CANCELLED);
    await serving.engine.whenReady();
    expect((await outcomeOf(serving.client, quick)).files).toHaveLength(1);
  });
});

describe('a killed engine', () => {
  it('fails its job with a retryable error and runs the next one when it is back', async () => {
    serving = await serve();
    const job = outcomeOf(serving.client, { ...slow, jobId: 'killed' });
    await until(async () => (await stateOf('killed')) === JobState.JOB_STATE_RUNNING);
    process.kill(serving.engine.pid ?? 0, 'SIGKILL');
    const { error, events } = await job;
    expect([error?.status, error?.reason, error?.retryable, error?.retryAfterMs]).toEqual([
      'UNAVAILABLE',
      'ENGINE_CRASHED',
      true,
      1000,
    ]);
    expect(events.at(-1)?.event).toMatchObject({
      $case: 'failed',
      value: { error: { reason: 'ENGINE_CRASHED', retryable: true } },
    });
    const next = await outcomeOf(serving.client, quick);
    expect(next.files).toHaveLength(1);
    expect(kinds(next.events)).toContain('modelLoading');
  });
});

describe('a job id', () => {
  it('starts a job anew that failed for a reason that may pass, and attaches to what came of it', async () => {
    serving = await serve({ JOB_RETENTION: '2' });
    const request = { ...quick, width: 256, height: 256, steps: 40, jobId: 'again' };
    const job = outcomeOf(serving.client, request);
    await until(async () => (await stateOf('again')) === JobState.JOB_STATE_RUNNING);
    process.kill(serving.engine.pid ?? 0, 'SIGKILL');
    expect((await job).error?.retryable).toBe(true);
    const second = await outcomeOf(serving.client, request);
    expect(second.files).toHaveLength(1);
    // The one that failed is forgotten for this one; what took its id is not.
    await outcomeOf(serving.client, quick);
    expect((await outcomeOf(serving.client, request)).events).toEqual(second.events);
  });
});

describe('a client that leaves', () => {
  it('takes its job along, by default', async () => {
    serving = await serve();
    const leave = new AbortController();
    const job = outcomeOf(serving.client, { ...slow, jobId: 'left' }, { signal: leave.signal });
    await until(async () => (await stateOf('left')) === JobState.JOB_STATE_RUNNING);
    leave.abort();
    await job;
    await until(async () => (await stateOf('left')) === JobState.JOB_STATE_CANCELLED);
  });

  it('leaves its job behind where it asked for that, and can watch it again', async () => {
    serving = await serve();
    const leave = new AbortController();
    const request = {
      ...quick,
      width: 256,
      height: 256,
      steps: 10,
      jobId: 'kept',
      disconnectPolicy: DisconnectPolicy.DISCONNECT_POLICY_CONTINUE,
    };
    const first = await outcomeOf(serving.client, request, {
      signal: leave.signal,
      onEvent: ({ event }) => event?.$case === 'progress' && leave.abort(),
    });
    const seen = first.events.at(-1)?.sequence ?? 0n;
    const rest = [];
    for await (const { event } of serving.client.jobs.watchJob({ jobId: 'kept', afterSequence: seen }))
      rest.push(event);
    expect(rest[0]?.sequence).toBe(seen + 1n);
    expect(rest.at(-1)?.event?.$case).toBe('completed');
  });

  it('does not take along a job that another stream watches', async () => {
    serving = await serve();
    const leave = new AbortController();
    const request = { ...quick, width: 256, height: 256, steps: 10, jobId: 'shared' };
    const first = outcomeOf(serving.client, request, { signal: leave.signal });
    await until(async () => (await stateOf('shared')) === JobState.JOB_STATE_RUNNING);
    const second = outcomeOf(serving.client, request, {
      onEvent: ({ event }) => event?.$case === 'progress' && leave.abort(),
    });
    expect((await second).files).toHaveLength(1);
    expect((await first).error?.status).toBe('CANCELLED');
  });

  it('whose deadline passes ends its job as DEADLINE_EXCEEDED', async () => {
    serving = await serve();
    const request = GenerateRequest.fromPartial({ ...slow, jobId: 'late' });
    const stream = serving.client.inference.generate(request, { deadline: Date.now() + 1500 });
    await expect(stream.toArray()).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
    await until(async () => (await stateOf('late')) === JobState.JOB_STATE_CANCELLED);
    expect((await getJob('late'))?.error?.reason).toBe('DEADLINE_EXCEEDED');
  });
});

describe('draining', () => {
  it('refuses new jobs with RetryInfo, ends the accepted ones, and says NOT_SERVING meanwhile', async () => {
    serving = await serve();
    const probe = health();
    const statuses: number[] = [];
    const watch = probe.watch({ service: '' });
    watch.on('data', (response: HealthCheckResponse) => statuses.push(response.status));
    watch.on('error', () => undefined);
    const accepted = [1n, 2n, 3n].map((seed) =>
      outcomeOf(serving.client, { ...quick, width: 256, height: 256, seed, jobId: `drain-${seed}` }),
    );
    await until(async () => (await stateOf('drain-3')) !== undefined);
    const drained = serving.server.drain();
    const { error } = await outcomeOf(serving.client, quick);
    expect([error?.status, error?.reason, error?.retryAfterMs]).toEqual(['UNAVAILABLE', 'DRAINING', 5000]);
    for (const outcome of await Promise.all(accepted)) expect(outcome.files).toHaveLength(1);
    watch.cancel();
    probe.close();
    await drained;
    expect(statuses).toEqual([Health.SERVING, Health.NOT_SERVING]);
  });
});

describe('a call that comes before the checkpoint was read', () => {
  it('ends with DRAINING when the server goes', async () => {
    serving = await serve({}, { startsLater: true });
    const waiting = outcomeOf(serving.client, quick);
    // It has the same connection, and so it comes later.
    await serverStatus(serving.client, 5000);
    await serving.server.drain();
    expect((await waiting).error).toMatchObject({ status: 'UNAVAILABLE', reason: 'DRAINING', retryAfterMs: 5000 });
  });

  it('has a place in the queue, which is bounded', async () => {
    serving = await serve({ LIMIT_QUEUE: '1' }, { startsLater: true });
    const waiting = outcomeOf(serving.client, quick);
    await serverStatus(serving.client, 5000);
    expect((await outcomeOf(serving.client, quick)).error?.reason).toBe('QUEUE_FULL');
    await serving.engine.start();
    expect((await waiting).files).toHaveLength(1);
  });

  it('ends with the reason why the model cannot be loaded', async () => {
    serving = await serve({ SDXL_PATH: '/nowhere' }, { startsLater: true });
    const waiting = outcomeOf(serving.client, quick);
    await expect(serving.engine.start()).rejects.toMatchObject({ reason: 'CHECKPOINT_INVALID' });
    expect((await waiting).error).toMatchObject({ reason: 'CHECKPOINT_INVALID', message: '/nowhere does not exist' });
  });
});

describe('a server with a token', () => {
  it('answers UNAUTHENTICATED without it, and serves with it', async () => {
    serving = await serve({ AUTH_TOKEN: 'a-long-secret' });
    const stranger = connect(`127.0.0.1:${serving.server.port}`);
    const { error } = await outcomeOf(stranger, quick);
    stranger.close();
    expect(error?.status).toBe('UNAUTHENTICATED');
    expect((await outcomeOf(serving.client, quick)).files).toHaveLength(1);
  });
});

describe('retention', () => {
  it('forgets the oldest finished jobs', async () => {
    serving = await serve({ JOB_RETENTION: '2' });
    for (const jobId of ['r1', 'r2', 'r3']) await outcomeOf(serving.client, { ...quick, jobId });
    expect(await Promise.all(['r1', 'r2', 'r3'].map(stateOf))).toEqual([
      undefined,
      JobState.JOB_STATE_COMPLETED,
      JobState.JOB_STATE_COMPLETED,
    ]);
  });
});
