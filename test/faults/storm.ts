import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'redis';
import { freePort, startRedis } from '../support/redis-server.js';
import { type Seeded, seeded } from '../support/seeded.js';
import { checkStorm } from './invariants.js';
import { type StormJob, stormJobs } from './jobs.js';
import { enginesOf, type Program, startProgram } from './processes.js';
import { startFaultyReceiver } from './receiver.js';

export interface StormOptions {
  /** Seed of the jobs, the faults and their times. The machine's own timing is not seeded. */
  readonly seed: number;
  readonly jobs: number;
  readonly kills: number;
  /** Longest wait for the last callback after the last kill. */
  readonly settleMs: number;
  readonly models: { readonly sdxl: string; readonly wan: string };
  readonly say: (line: string) => void;
}

export interface StormReport {
  /** Invariants that did not hold. */
  readonly violations: readonly string[];
  readonly callbacks: number;
  readonly seconds: number;
}

const MEAN_MS_BETWEEN_KILLS = 700;
/** Longer than a lease: a bridge that wakes up finds that others have its jobs. */
const PAUSE_MS = 3500;

/**
 * A real Redis that keeps a log, two servers and two bridges as processes of their own, and a caller, under faults: every kind of
 * process is killed or stopped at random moments while jobs are pushed. Then everything is left alone until it settles, and is checked from outside.
 */
export async function runStorm({
  seed,
  jobs: count,
  kills,
  settleMs,
  models,
  say,
}: StormOptions): Promise<StormReport> {
  const startedAt = performance.now();
  const random = seeded(seed);
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-storm-'));
  const [redisFolder, files, spool] = ['redis', 'files', 'spool'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  for (const each of [redisFolder, files, spool]) await mkdir(each);
  const redis = await startRedis(redisFolder);
  const receiver = await startFaultyReceiver(seeded(seed + 1));
  const ports = [await freePort(), await freePort()];
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    REDIS_URL: redis.url,
    DARKROOM_SERVER: ports.map((port) => `127.0.0.1:${port}`).join(','),
    CALLBACK_URL: receiver.url,
    CALLBACK_TIMEOUT_MS: '500',
    CALLBACK_RETRY_MS: '50',
    CALLBACK_RETRY_MAX_MS: '1000',
    STORAGE: 'local',
    STORAGE_FOLDER: files,
    BRIDGE_SPOOL: spool,
    BRIDGE_LEASE_MS: '1500',
    BRIDGE_RETRY_MS: '100',
    BRIDGE_RETRY_MAX_MS: '1000',
    // Killing a server costs its jobs an attempt, and servers are killed often here.
    BRIDGE_ATTEMPTS: '1000',
    BRIDGE_DRAIN_MS: '0',
    ENGINE_THREADS: '1',
    LOG_LEVEL: 'silent',
  };
  const serve = ['serve', '--sdxl', models.sdxl, '--wan', models.wan, '--device', 'cpu', '--listen'];
  const servers = await Promise.all(ports.map((port) => startProgram([...serve, `127.0.0.1:${port}`], env)));
  const bridges = await Promise.all([startProgram(['bridge'], env), startProgram(['bridge'], env)]);
  const jobs = stormJobs(count, seeded(seed + 2));
  try {
    const pushing = push(jobs, redis.url, kills * MEAN_MS_BETWEEN_KILLS, seeded(seed + 3));
    for (let kill = 0; kill < kills; kill += 1) {
      await sleep(random.next() * 2 * MEAN_MS_BETWEEN_KILLS);
      say(`${String(kill + 1).padStart(4)} ${await strike(random, { servers, bridges, redis })}`);
    }
    await pushing;
    receiver.mend();
    const client = createClient({ url: redis.url });
    await client.connect();
    const violations = await checkStorm({ jobs, client, receiver, files, settleMs });
    client.destroy();
    return {
      violations,
      callbacks: receiver.notes.length,
      seconds: Math.round((performance.now() - startedAt) / 1000),
    };
  } finally {
    await Promise.all([...servers, ...bridges].map((program) => program.stop()));
    await receiver.stop();
    await redis.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

interface Targets {
  readonly servers: readonly Program[];
  readonly bridges: readonly Program[];
  readonly redis: { crash(): Promise<void> };
}

/** Injects one fault into one process. @returns a description */
async function strike(random: Seeded, { servers, bridges, redis }: Targets): Promise<string> {
  const what = random.pick(['bridge', 'bridge', 'pause', 'pause', 'engine', 'engine', 'server', 'redis'] as const);
  const which = random.below(2);
  switch (what) {
    case 'bridge':
      await bridges[which]?.crash();
      return `bridge ${which}`;
    case 'pause':
      bridges[which]?.pause(PAUSE_MS);
      return `bridge ${which} stands still`;
    case 'server':
      await servers[which]?.crash();
      return `server ${which}`;
    case 'redis':
      await redis.crash();
      return 'redis';
    case 'engine': {
      const engines = await enginesOf(servers[which]?.pid ?? 0);
      const engine = engines[random.below(Math.max(1, engines.length))];
      if (engine !== undefined) killIfAlive(engine);
      return `engine of server ${which}`;
    }
  }
}

function killIfAlive(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended with its server.
  }
}

/** Pushes as producers do: over the whole time, again if Redis did not answer, some jobs twice. */
async function push(jobs: readonly StormJob[], url: string, overMs: number, random: Seeded): Promise<void> {
  const client = createClient({ url, disableOfflineQueue: true, socket: { reconnectStrategy: 20 } });
  client.on('error', () => undefined);
  await client.connect();
  for (const { list, raw, isTwice } of jobs) {
    for (let left = isTwice ? 2 : 1; left > 0; left -= 1) {
      while (!(await client.lPush(list, raw).catch(() => false))) await sleep(20);
    }
    await sleep((random.next() * 2 * overMs) / jobs.length);
  }
  client.destroy();
}
