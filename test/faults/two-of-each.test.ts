import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from 'redis';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { connect, type DarkroomClient } from '../../src/client/client.js';
import { quickPayload } from '../support/bridging.js';
import { startReceiver } from '../support/receiver.js';
import { freePort, startRedis } from '../support/redis-server.js';
import { until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { startProgram } from './processes.js';

/** Number of starts of each job that a server has, by id. */
async function startsOn(client: DarkroomClient): Promise<ReadonlyMap<string, number>> {
  const { jobs } = await new Promise<{ jobs: { jobId: string }[] }>((resolve, reject) =>
    client.jobs.listJobs({ pageSize: 1000, pageToken: '', states: [], fullTexts: false }, (error, response) =>
      error ? reject(error) : resolve(response),
    ),
  );
  const starts = new Map<string, number>();
  for (const { jobId } of jobs) {
    let count = 0;
    for await (const { event } of client.jobs.watchJob({ jobId, afterSequence: 0n })) {
      if (event?.event?.$case === 'started') count += 1;
    }
    starts.set(jobId, count);
  }
  return starts;
}

describe('two bridges and two servers on one Redis', () => {
  it('run no job twice, share the work, and lose nothing when a bridge is killed', async () => {
    const [redis, receiver, folder] = [await startRedis(), await startReceiver(), await tempFolder()];
    const ports = [await freePort(), await freePort()];
    await mkdir(join(folder, 'spool'));
    const env = {
      ...process.env,
      REDIS_URL: redis.url,
      DARKROOM_SERVER: ports.map((port) => `127.0.0.1:${port}`).join(','),
      CALLBACK_URL: receiver.url,
      STORAGE_FOLDER: folder,
      BRIDGE_SPOOL: join(folder, 'spool'),
      BRIDGE_LEASE_MS: '1500',
      ENGINE_THREADS: '1',
      LOG_LEVEL: 'silent',
    };
    const serve = ['serve', '--sdxl', inject('tinySdxl'), '--device', 'cpu', '--listen'];
    const servers = await Promise.all(ports.map((port) => startProgram([...serve, `127.0.0.1:${port}`], env)));
    const bridges = [await startProgram(['bridge'], env), await startProgram(['bridge'], env)];
    const producer = createClient({ url: redis.url });
    const clients = ports.map((port) => connect(`127.0.0.1:${port}`));
    onTestFinished(async () => {
      for (const client of clients) client.close();
      producer.destroy();
      await Promise.all([...servers, ...bridges].map((program) => program.stop()));
      await receiver.stop();
      await redis.stop();
    });
    await producer.connect();
    const ids = Array.from({ length: 40 }, (_, i) => `both-${i}`);
    const ended = () => ids.filter((id) => receiver.taken(id).some(({ body }) => body.status === 'completed')).length;
    for (const id of ids) {
      await producer.lPush(
        'sdxl_queue',
        JSON.stringify(quickPayload(id, { config: { width: 128, height: 128, steps: 6 } })),
      );
    }
    await until(() => ended() >= 10);
    await bridges[0]?.stop();
    await until(() => ended() === ids.length);

    const [first = new Map(), second = new Map()] = await Promise.all(clients.map(startsOn));
    expect([...first.keys(), ...second.keys()].sort()).toEqual([...ids].sort());
    expect(new Set([...first.values(), ...second.values()])).toEqual(new Set([1]));
    expect(Math.min(first.size, second.size)).toBeGreaterThanOrEqual(ids.length / 4);
    for (const id of ids) {
      const terminal = receiver.received.filter(({ body }) => body.job_id === id && body.status !== 'processing');
      expect(new Set(terminal.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
    }
  });
});
