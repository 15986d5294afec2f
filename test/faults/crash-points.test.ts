import { readdir } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { RedisRunner } from '../../src/queue-bridge/queue/redis-runner.js';
import { ScriptQueue } from '../../src/queue-bridge/queue/script-queue.js';
import { LocalStore } from '../../src/storage/local-store.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { type Edge, Mortal } from '../support/mortal.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { type Serving, serve } from '../support/serving.js';

let serving: Serving;
let redis: RedisServer;
beforeAll(async () => {
  [serving, redis] = await Promise.all([serve(), startRedis()]);
});
afterAll(() => Promise.all([serving.stop(), redis.stop()]));

const records = (field: string) => (args: readonly unknown[]) => field in (args[2] as object);
const stores = (index: number) => (args: readonly unknown[]) => (args[0] as { key: string }).key.includes(`/${index}.`);
const settles = () => {
  let calls = 0;
  return () => ++calls === 2;
};

/** Every point where a bridge can die, in the order of a job. */
const edges: readonly (readonly [name: string, edge: Edge, of: 'queue' | 'storage'])[] = [
  ['after it admitted the payload', { method: 'admit', when: 'after' }, 'queue'],
  ['after the claim', { method: 'claim', when: 'after' }, 'queue'],
  ['after it took processing for delivery', { method: 'takeDeliveries', when: 'after' }, 'queue'],
  ['after processing was delivered', { method: 'settle', when: 'before' }, 'queue'],
  [
    'before it recorded the generated files',
    { method: 'record', when: 'before', matches: records('generated') },
    'queue',
  ],
  [
    'after it recorded the generated files',
    { method: 'record', when: 'after', matches: records('generated') },
    'queue',
  ],
  ['before the first upload', { method: 'put', when: 'before', matches: stores(0) }, 'storage'],
  ['after the first upload', { method: 'put', when: 'after', matches: stores(0) }, 'storage'],
  ['after it recorded the first upload', { method: 'record', when: 'after', matches: records('upload:0') }, 'queue'],
  ['after the second upload', { method: 'put', when: 'after', matches: stores(1) }, 'storage'],
  ['after it recorded the second upload', { method: 'record', when: 'after', matches: records('upload:1') }, 'queue'],
  ['after it recorded the last upload', { method: 'record', when: 'after', matches: records('upload:2') }, 'queue'],
  ['before it recorded the end', { method: 'finish', when: 'before' }, 'queue'],
  ['after it recorded the end and its callback', { method: 'finish', when: 'after' }, 'queue'],
  ['after the end was delivered', { method: 'settle', when: 'before', matches: settles() }, 'queue'],
  ['after it recorded the delivery', { method: 'settle', when: 'after', matches: settles() }, 'queue'],
];

describe('a bridge that dies', () => {
  it.each(edges)('%s: the next one continues from there', async (name, edge, of) => {
    const id = name.replaceAll(/\W+/g, '-');
    const { start, push, ended, queue, receiver, folder } = await bridging(`127.0.0.1:${serving.server.port}`, {
      queue: (config) =>
        new ScriptQueue(new RedisRunner(redis.url, 60_000), {
          lanes: config.lanes,
          callsBack: true,
          retentionMs: config.BRIDGE_RETENTION_MS,
          prefix: `${id}:`,
        }),
      variables: {
        BRIDGE_SDXL_QUEUE: `${id}:sdxl`,
        BRIDGE_WAN_QUEUE: `${id}:wan`,
        BRIDGE_LEASE_MS: '1000',
        CALLBACK_TIMEOUT_MS: '300',
      },
    });
    const life = new Mortal();
    const storage = new LocalStore({ folder });
    const first = await start({
      queue: life.wrap(queue, of === 'queue' ? edge : undefined),
      storage: life.wrap(storage, of === 'storage' ? edge : undefined),
    });
    onTestFinished(() => {
      life.bury();
      return first.stop();
    });
    await push(quickPayload(id, { config: { num_images: 3 } }));
    await life.death;
    await start();

    const { status, assets } = await ended(id);
    expect([status, assets.length]).toEqual(['completed', 3]);
    // One terminal callback, however often it was delivered, and nothing after it but itself.
    const terminal = receiver.received.filter(({ body }) => body.status !== 'processing');
    expect(new Set(terminal.map(({ headers, raw }) => `${headers['webhook-id']} ${raw}`)).size).toBe(1);
    const statuses = receiver.received.map(({ body }) => body.status);
    expect(statuses.lastIndexOf('processing')).toBeLessThan(statuses.indexOf('completed'));
    // One set of files.
    const job = `${folder}/sdxl_image_fast/ann/${id}`;
    expect((await readdir(job)).sort()).toEqual(['0.png', '1.png', '2.png']);
    // Generated once.
    const starts = [];
    for await (const { event } of serving.client.jobs.watchJob({ jobId: id, afterSequence: 0n })) {
      if (event?.event?.$case === 'started') starts.push(event);
    }
    expect(starts).toHaveLength(1);
    // Nothing is leased or waits.
    await expect
      .poll(() => queue.counts(), { timeout: 20_000 })
      .toEqual({
        pushed: 0,
        waiting: 0,
        delayed: 0,
        leased: 0,
        callbacks: 0,
        dead: 0,
        deadCallbacks: 0,
        usage: 0,
        deadUsage: 0,
        rejected: 0,
      });
  });
});
