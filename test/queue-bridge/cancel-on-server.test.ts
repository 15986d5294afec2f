import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { JobState } from '../../src/gen/darkroom/v1/job.js';
import { RedisRunner } from '../../src/queue-bridge/queue/redis-runner.js';
import { ScriptQueue } from '../../src/queue-bridge/queue/script-queue.js';
import { type Bridging, bridging, quickPayload } from '../support/bridging.js';
import { Mortal } from '../support/mortal.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { type Serving, serve, until } from '../support/serving.js';

let serving: Serving;
let redis: RedisServer;
let address: string;
beforeAll(async () => {
  [serving, redis] = await Promise.all([serve(), startRedis()]);
  address = `127.0.0.1:${serving.server.port}`;
});
afterAll(() => Promise.all([serving.stop(), redis.stop()]));

const config = { width: 1024, height: 1024, steps: 40 };

const stateOnServer = (jobId: string) =>
  new Promise<JobState | undefined>((resolve) =>
    serving.client.jobs.getJob({ jobId }, (_, response) => resolve(response?.job?.state)),
  );
const isRunning = async (jobId: string) => (await stateOnServer(jobId)) === JobState.JOB_STATE_RUNNING;
const isCancelled = async (jobId: string) => (await stateOnServer(jobId)) === JobState.JOB_STATE_CANCELLED;

const withRedis = (id: string, variables: Readonly<Record<string, string>> = {}) =>
  bridging(address, {
    queue: ({ lanes, BRIDGE_RETENTION_MS: retentionMs }) =>
      new ScriptQueue(new RedisRunner(redis.url, 60_000), { lanes, callsBack: true, retentionMs, prefix: `${id}:` }),
    variables: {
      BRIDGE_SDXL_QUEUE: `${id}:sdxl`,
      BRIDGE_WAN_QUEUE: `${id}:wan`,
      BRIDGE_LEASE_MS: '1000',
      ...variables,
    },
  });

/** Leaves a job that its server renders, and whose bridge is dead. */
async function orphan({ start, push, queue }: Bridging, id: string): Promise<void> {
  const life = new Mortal();
  const first = await start({ queue: life.wrap(queue, { method: 'heartbeat', when: 'before' }) });
  onTestFinished(() => {
    life.bury();
    return first.stop();
  });
  await push(quickPayload(id, { config }));
  await life.death;
  await until(() => isRunning(id));
}

describe('a job whose bridge is dead', () => {
  it('is cancelled on its server by the bridge that takes it over, if it was cancelled', async () => {
    const id = 'cancelled-orphan';
    const all = await withRedis(id);
    await orphan(all, id);
    expect(await all.queue.cancel(id, '{}')).toBe('asked');
    await all.start();
    expect((await all.ended(id)).metadata.error_type).toBe('CANCELLED');
    await until(() => isCancelled(id));
  });

  it('is cancelled on its server when it is given up, so that a replay does not run beside it', async () => {
    const id = 'dead-orphan';
    const all = await withRedis(id, { BRIDGE_ATTEMPTS: '1' });
    await orphan(all, id);
    await all.start();
    expect((await all.ended(id)).error_message).toContain('given up after 1 attempts');
    expect(await all.queue.show(id)).toMatchObject({ state: 'dead', attempts: '1' });
    await until(() => isCancelled(id));
  });
});

describe.each(['memory', 'Redis'])(
  'a job that waits for a bridge in %s, and that its server still renders',
  (store) => {
    it('is cancelled there by the next bridge, if it was cancelled meanwhile', async () => {
      const id = `waiting-in-${store}`;
      const { start, push, ended, queue } = store === 'memory' ? await bridging(address) : await withRedis(id);
      const first = await start();
      await push(quickPayload(id, { config }));
      await until(() => isRunning(id));
      await first.stop();
      expect(await queue.show(id)).toMatchObject({ state: 'waiting' });
      const body = JSON.stringify({ job_id: id, status: 'failed', assets: [], error_message: 'x', metadata: {} });
      expect(await queue.cancel(id, body)).toBe('cancelled');
      expect((await queue.poll()).strayRuns).toEqual([{ server: address, jobId: id }]);
      await start();
      await ended(id);
      await until(() => isCancelled(id));
      await until(async () => (await queue.poll()).strayRuns.length === 0);
    });
  },
);

it('a run that waits to be cancelled is left to a bridge whose server has it', async () => {
  const id = 'elsewhere';
  const { start, push, queue } = await withRedis(id);
  const first = await start();
  await push(quickPayload(id, { config }));
  await until(() => isRunning(id));
  await first.stop();
  expect(await queue.cancel(id, JSON.stringify({ job_id: id, status: 'failed' }))).toBe('cancelled');
  const others = await withRedis(id, { DARKROOM_SERVER: '127.0.0.1:1' });
  const other = await others.start();
  await setTimeout(1000);
  await other.stop();
  expect((await queue.poll()).strayRuns).toEqual([{ server: address, jobId: id }]);
  await start();
  await until(() => isCancelled(id));
  await until(async () => (await queue.poll()).strayRuns.length === 0);
});

it('a cancelled job is called back although its server is not reachable, or no bridge knows the server', async () => {
  const { start, push, ended, queue } = await withRedis('lonely', { DARKROOM_SERVER: `127.0.0.1:1,${address}` });
  for (const [id, server] of [
    ['unreachable', '127.0.0.1:1'],
    ['unknown', '127.0.0.1:2'],
  ] as const) {
    await push(quickPayload(id));
    const [payload] = (await queue.poll()).payloads;
    const admission = { kind: 'job', id, user: 'ann', lane: 'sdxl', type: 'sdxl_image_fast' } as const;
    await queue.admit('lonely:sdxl', [[payload?.sha1 ?? '', admission]]);
    const lanes = [{ lane: 'sdxl', weight: 1, server, keeps: false }];
    await queue.claim({ token: id, worker: 'gone', leaseMs: 2000, seed: 1, lanes });
    expect(await queue.cancel(id, '{}')).toBe('asked');
  }
  await start();
  for (const id of ['unreachable', 'unknown']) expect((await ended(id)).metadata.error_type).toBe('CANCELLED');
});
