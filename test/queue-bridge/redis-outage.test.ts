import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { expect, it, onTestFinished, vi } from 'vitest';
import type { BridgeConfig } from '../../src/config/bridge-config.js';
import { InferenceError } from '../../src/errors.js';
import { AnswerWatch } from '../../src/queue-bridge/queue/answer-watch.js';
import { RedisRunner } from '../../src/queue-bridge/queue/redis-runner.js';
import { ScriptQueue } from '../../src/queue-bridge/queue/script-queue.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { startInstantServer } from '../support/instant-server.js';
import { Mortal } from '../support/mortal.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

const LEASE_MS = 3000;
/** Longer than a lease and the slack of polls. */
const OUTAGE_MS = 6000;
/** Longer than the outage and the time until renewals work again. */
const WORK_MS = 9000;

/** A Redis of the test, and bridges to it. Each has a connection of its own. */
async function outage() {
  const redis = await startRedis(await tempFolder());
  const server = await startInstantServer(Buffer.alloc(10), WORK_MS);
  onTestFinished(async () => {
    server.close();
    await redis.stop();
  });
  const queue = ({ lanes, BRIDGE_RETENTION_MS: retentionMs }: BridgeConfig) =>
    new ScriptQueue(new RedisRunner(redis.url, 60_000), { lanes, callsBack: true, retentionMs, prefix: 'o:' });
  const all = await bridging(server.address, { queue, variables: { BRIDGE_LEASE_MS: String(LEASE_MS) } });
  return { redis, server, ...all, another: () => queue(all.config) };
}

const outages: readonly (readonly [string, (redis: RedisServer) => Promise<void>])[] = [
  [
    'hangs, with requests on their way',
    async ({ process: child }) => {
      child.kill('SIGSTOP');
      await sleep(OUTAGE_MS);
      child.kill('SIGCONT');
    },
  ],
  [
    'is killed, and restarts on its log',
    async (redis) => {
      await redis.stop();
      await sleep(OUTAGE_MS);
      await redis.crash();
    },
  ],
];

it.each(outages)(
  'a Redis that %s for longer than a lease costs running jobs no attempt',
  { timeout: 60_000 },
  async (...[, happen]) => {
    const { redis, server, start, push, ended, queue, another } = await outage();
    await start();
    await push(quickPayload('held'));
    await server.called;
    // One that has no job must not reap either.
    const idle = another();
    const second = await start({ queue: idle });
    await happen(redis);
    // One that starts now knows of no outage.
    const late = another();
    const third = await start({ queue: late });
    expect((await ended('held')).status).toBe('completed');
    expect(await queue.show('held')).toMatchObject({ attempts: '1' });
    expect((await queue.show('held'))?.last_error).toBeUndefined();
    for (const bridge of [second, third]) await bridge.stop();
    for (const each of [idle, late]) await each.close();
  },
);

it('a job whose bridge died during an outage is taken over after it', { timeout: 60_000 }, async () => {
  const { redis, server, start, push, ended, queue } = await outage();
  const life = new Mortal();
  const first = await start({ queue: life.wrap(queue, { method: 'heartbeat', when: 'before' }) });
  onTestFinished(() => {
    life.bury();
    return first.stop();
  });
  await push(quickPayload('orphan'));
  await server.called;
  await life.death;
  await start();
  await redis.stop();
  await sleep(OUTAGE_MS);
  await redis.crash();
  expect((await ended('orphan')).status).toBe('completed');
  expect(await queue.show('orphan')).toMatchObject({ attempts: '2' });
});

it.each([
  [
    'hangs',
    async ({ process: child }: RedisServer) => void child.kill('SIGSTOP'),
    async ({ process: child }: RedisServer) => void child.kill('SIGCONT'),
  ],
  ['is killed', (redis: RedisServer) => redis.stop(), (redis: RedisServer) => redis.crash()],
])(
  'a bridge is not ready a few seconds after its Redis %s, and logs that it is away and back',
  { timeout: 60_000 },
  async (_, leave, comeBack) => {
    const lines: { level: number; msg: string; problem?: string }[] = [];
    const log = pino({ level: 'warn' }, { write: (line) => void lines.push(JSON.parse(line)) });
    const { redis, start } = await outage();
    const bridge = await start({ log });
    await until(() => bridge.notReady() === undefined);
    await leave(redis);
    await expect
      .poll(() => bridge.notReady(), { timeout: 8000 })
      .toMatch(/^Redis \(REDIS_URL\) has not answered for \d+ s$/);
    await expect.poll(() => lines.length, { timeout: 2000 }).toBe(1);
    await comeBack(redis);
    await until(() => bridge.notReady() === undefined);
    await expect.poll(() => lines.length, { timeout: 2000 }).toBe(2);
    expect(lines).toMatchObject([
      {
        level: 40,
        msg: expect.stringMatching(/^the queue does not answer/),
        problem: expect.stringContaining('Redis (REDIS_URL)'),
      },
      { level: 40, msg: 'the queue answers again' },
    ]);
  },
);

it('a Redis that answers late now and then, and one that rejects commands, is not away', async () => {
  const watch = new AnswerWatch('Redis');
  await watch.watch(() => sleep(20));
  await expect(watch.watch(() => Promise.reject(new InferenceError('INTERNAL', 'OOM')))).rejects.toThrow('OOM');
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  vi.advanceTimersByTime(10_000);
  expect(watch.problem).toBeUndefined();
  const unreachable = new InferenceError('UNREACHABLE', 'gone');
  await expect(watch.watch(() => Promise.reject(unreachable))).rejects.toThrow('gone');
  vi.advanceTimersByTime(4000);
  expect(watch.problem).toBe('Redis has not answered for 4 s');
  await watch.watch(async () => undefined);
  expect(watch.problem).toBeUndefined();
});
