import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from 'redis';
import { expect, inject, it, onTestFinished } from 'vitest';
import { connect, UnreachableError } from '../../src/client/client.js';
import type { InferenceError } from '../../src/errors.js';
import { quickPayload } from '../support/bridging.js';
import { startReceiver } from '../support/receiver.js';
import { freePort, startRedis } from '../support/redis-server.js';
import { outcomeOf, quick, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { startProgram } from './processes.js';

interface LogLine {
  readonly msg: string;
  readonly jobId?: string;
  readonly reason?: string;
}

it('replaces servers and bridges one by one under load: nothing is lost, nothing is rendered twice, clients only wait', {
  timeout: 240_000,
}, async () => {
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
    BRIDGE_ATTEMPTS: '1',
    BRIDGE_DRAIN_MS: '500',
    ENGINE_THREADS: '1',
    METRICS_LISTEN: 'off',
  };
  const serve = ['serve', '--sdxl', inject('tinySdxl'), '--device', 'cpu', '--listen'];
  const logs = ports.map((port) => join(folder, `server-${port}.log`));
  const servers = await Promise.all(
    ports.map((port, i) => startProgram([...serve, `127.0.0.1:${port}`], env, logs[i])),
  );
  const bridges = [await startProgram(['bridge'], env), await startProgram(['bridge'], env)];
  const producer = createClient({ url: redis.url });
  const client = connect(`127.0.0.1:${ports[0]}`);
  onTestFinished(async () => {
    client.close();
    producer.destroy();
    await Promise.all([...servers, ...bridges].map((program) => program.stop()));
    await receiver.stop();
    await redis.stop();
  });
  await producer.connect();

  const ids: string[] = [];
  const direct: string[] = [];
  const surprises: string[] = [];
  let isOver = false;
  const pushing = (async () => {
    while (!isOver) {
      const id = `rolling-${ids.length}`;
      ids.push(id);
      const config = { width: 128, height: 128, steps: 8, seed: ids.length };
      await producer.lPush('sdxl_queue', JSON.stringify(quickPayload(id, { config })));
      await sleep(300);
    }
  })();
  // A client of one server, whose jobs are its own to repeat.
  const calling = (async () => {
    while (!isOver) {
      const jobId = `direct-${direct.length}`;
      const { error } = await outcomeOf(client, { ...quick, jobId, steps: 6, seed: BigInt(direct.length + 1) });
      if (error === undefined) direct.push(jobId);
      else if (!isRetry(error)) surprises.push(`${jobId}: ${error.reason} ${error.message}`);
      else await sleep(error.retryAfterMs === undefined ? 100 : Math.min(error.retryAfterMs, 300));
    }
  })();
  const ended = () => ids.filter((id) => receiver.taken(id).some(({ body }) => body.status !== 'processing')).length;
  await until(() => ended() >= 4 && direct.length >= 2);
  for (const program of [...servers, ...bridges]) {
    const before = ended();
    expect(await program.replace()).toBe(0);
    await until(() => ended() >= before + 4);
  }
  const answered = direct.length;
  await until(() => direct.length > answered);
  isOver = true;
  await Promise.all([pushing, calling]);
  await until(() => ended() === ids.length);

  expect(surprises).toEqual([]);
  for (const id of ids) {
    const ends = receiver.taken(id).filter(({ body }) => body.status !== 'processing');
    expect(ends.map(({ body }) => body.error_message ?? body.status)).toEqual(['completed']);
    expect(await readdir(join(folder, 'sdxl_image_fast', 'ann', id))).toEqual(['0.png']);
  }
  const lines = (await Promise.all(logs.map((log) => readFile(log, 'utf8')))).join('').split('\n');
  const rendered = lines.flatMap((line): string[] => {
    if (!line.startsWith('{')) return [];
    const { msg, jobId = '', reason } = JSON.parse(line) as LogLine;
    return msg === 'job ended' && reason === undefined ? [jobId] : [];
  });
  expect([...rendered].sort()).toEqual([...ids, ...direct].sort());
});

/** True for what a rolling update may tell a client: wait as long as it says, or nobody took the call. */
function isRetry(error: InferenceError): boolean {
  if (error instanceof UnreachableError) return !error.wasSent;
  return error.status === 'UNAVAILABLE' && error.retryAfterMs !== undefined;
}
