import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import type { BridgeConfig } from '../../src/config/bridge-config.js';
import { RedisRunner } from '../../src/queue-bridge/queue/redis-runner.js';
import { ScriptQueue } from '../../src/queue-bridge/queue/script-queue.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { startInstantServer } from '../support/instant-server.js';
import { Mortal } from '../support/mortal.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
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
