/**
 * npm run bench -- bridge [--jobs 500] [--runs 50] [--idle-s 60]
 *
 * The bridge between a real redis-server and a server that has every picture done at once, so that what is measured is the
 * bridge: all in one process but Redis, files on the local disk, a receiver that answers at once.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { connect, generate } from '../../src/client/client.js';
import { readBridgeConfig } from '../../src/config/bridge-config.js';
import { startBridge } from '../../src/queue-bridge/bridge.js';
import { openQueue } from '../../src/queue-bridge/queue/open-queue.js';
import { LocalStore } from '../../src/storage/local-store.js';
import { startInstantServer } from '../support/instant-server.js';
import { type Receiver, startReceiver } from '../support/receiver.js';
import { startRedis } from '../support/redis-server.js';
import { startUpstashFront } from '../support/upstash-front.js';
import { print } from './stopwatch.js';

const { values } = parseArgs({
  options: {
    jobs: { type: 'string', default: '500' },
    runs: { type: 'string', default: '50' },
    'idle-s': { type: 'string', default: '60' },
  },
});
const [jobs, runs, idleSeconds] = [Number(values.jobs), Number(values.runs), Number(values['idle-s'])];
/** About what a compressed picture of 512x512 weighs. */
const picture = Buffer.alloc(400_000, 7);

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
const redis = await startRedis(folder);
const front = await startUpstashFront(redis.url);
const server = await startInstantServer(picture);
print(`${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}`);
try {
  await measure('redis', { REDIS_URL: redis.url });
  await measureServers();
  await measure('upstash', { UPSTASH_REDIS_REST_URL: front.url, UPSTASH_REDIS_REST_TOKEN: front.token });
} finally {
  server.close();
  await front.stop();
  await redis.stop();
  await rm(folder, { recursive: true });
}

async function measure(name: 'redis' | 'upstash', variables: Readonly<Record<string, string>>): Promise<void> {
  const receiver = await startReceiver();
  const config = readBridgeConfig(
    {},
    {
      ...variables,
      DARKROOM_SERVER: server.address,
      CALLBACK_URL: receiver.url,
      BRIDGE_PREFIX: `${name}:`,
      BRIDGE_SDXL_QUEUE: `${name}_queue`,
      BRIDGE_SLOTS: '16',
      BRIDGE_SDXL_SLOTS: '16',
      CALLBACK_CONCURRENCY: '16',
    },
  );
  const queue = openQueue(config);
  const storage = new LocalStore({ folder: join(folder, name) });
  const push = (id: string) => queue.push(config.lanes[0].queue, payload(id));
  const bridge = await startBridge({ config, queue, storage, log: pino({ level: 'silent' }) });
  for (let i = 0; i < 5; i += 1) await push(`warm-${i}`);
  await ended(receiver, 5);

  const direct: number[] = [];
  const client = connect(server.address);
  for (let run = 0; run < runs; run += 1) {
    const begin = performance.now();
    for await (const _ of generate(client, { jobId: `direct-${run}`, prompt: 'a red circle' }));
    direct.push(performance.now() - begin);
  }
  client.close();
  const through: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const begin = performance.now();
    await push(`single-${run}`);
    await ended(receiver, 5 + run + 1);
    through.push(performance.now() - begin);
  }
  row(name, 'direct Generate', quantile(direct, 0.5), 'ms, median');
  row(name, 'push to callback', quantile(through, 0.5), `ms, median; p95 ${quantile(through, 0.95).toFixed(1)}`);
  row(name, 'added by the bridge', quantile(through, 0.5) - quantile(direct, 0.5), 'ms; to hold on Redis: 20');

  const before = front.commands;
  const begin = performance.now();
  for (let i = 0; i < jobs; i += 1) await push(`many-${i}`);
  await ended(receiver, 5 + runs + jobs);
  row(name, 'jobs a second', jobs / ((performance.now() - begin) / 1000), `${jobs} jobs, 16 slots, pushes included`);
  if (name === 'upstash') {
    row(name, 'commands a job', (front.commands - before) / jobs, 'the push included, many jobs at once');
    // The looks grow apart while nothing happens.
    await sleep(20_000);
    const idle = front.commands;
    await sleep(idleSeconds * 1000);
    row(name, 'commands a minute, idle', ((front.commands - idle) * 60) / idleSeconds, `over ${idleSeconds} s`);
  }
  await bridge.stop();
  await queue.close();
  await receiver.stop();
}

/** Jobs a second on one server and on two, each of which makes a picture in 50 ms, one after the other. */
async function measureServers(): Promise<void> {
  for (const count of [1, 2]) {
    const servers = await Promise.all(Array.from({ length: count }, () => startInstantServer(picture, 50)));
    const receiver = await startReceiver();
    const config = readBridgeConfig(
      {},
      {
        REDIS_URL: redis.url,
        DARKROOM_SERVER: servers.map(({ address }) => address).join(','),
        CALLBACK_URL: receiver.url,
        BRIDGE_PREFIX: `servers-${count}:`,
        BRIDGE_SDXL_QUEUE: `servers_${count}`,
        BRIDGE_SLOTS: '6',
        BRIDGE_SDXL_SLOTS: '6',
      },
    );
    const queue = openQueue(config);
    const storage = new LocalStore({ folder: join(folder, `servers-${count}`) });
    for (let i = 0; i < jobs / 5; i += 1) await queue.push(config.lanes[0].queue, payload(`job-${i}`));
    const begin = performance.now();
    const bridge = await startBridge({ config, queue, storage, log: pino({ level: 'silent' }) });
    await ended(receiver, jobs / 5);
    const rate = jobs / 5 / ((performance.now() - begin) / 1000);
    row('redis', `jobs a second, ${count} busy`, rate, `${count === 1 ? 'server' : 'servers'} of 50 ms a job`);
    await bridge.stop();
    await queue.close();
    await receiver.stop();
    for (const { close } of servers) close();
  }
}

/** Waits for that many jobs to be called back as ended. */
async function ended({ received }: Receiver, count: number): Promise<void> {
  const isEnd = () => received.reduce((n, { body }) => n + (body.status === 'processing' ? 0 : 1), 0) >= count;
  while (!isEnd()) await sleep(0.5);
}

function payload(id: string): string {
  return JSON.stringify({ id, type: 'sdxl_image_fast', prompt: 'a red circle', user_id: 'ann', config: { seed: 1 } });
}

function quantile(numbers: readonly number[], q: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

function row(name: string, what: string, value: number, note: string): void {
  print(`${name.padEnd(8)} ${what.padEnd(24)} ${value.toFixed(1).padStart(9)} ${note}`);
}
