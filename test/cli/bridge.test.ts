import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { createClient } from 'redis';
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { quickPayload } from '../support/bridging.js';
import { type Receiver, startReceiver } from '../support/receiver.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { type Serving, serve, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { startUpstashFront } from '../support/upstash-front.js';

const main = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));

let serving: Serving;
let redis: RedisServer;
let receiver: Receiver;
let producer: ReturnType<typeof createClient>;
beforeAll(async () => {
  [serving, redis, receiver] = await Promise.all([serve(), startRedis(), startReceiver()]);
  producer = createClient({ url: redis.url });
  await producer.connect();
});
afterAll(async () => {
  producer.destroy();
  await Promise.all([serving.stop(), receiver.stop(), redis.stop()]);
});

/** Variables of a deployment. @param folder for files */
const environment = (folder: string, more: Readonly<Record<string, string>> = {}) => ({
  ...process.env,
  REDIS_URL: redis.url,
  DARKROOM_SERVER: `127.0.0.1:${serving.server.port}`,
  CALLBACK_URL: receiver.url,
  STORAGE_FOLDER: folder,
  // A killed bridge leaves its spool.
  BRIDGE_SPOOL: folder,
  LOG_LEVEL: 'silent',
  ...more,
});

function darkroom(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

function start(args: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const child = spawn(process.execPath, [main, ...args], { env, stdio: ['pipe', 'pipe', 'ignore'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  return child;
}

async function firstLine({ stdout }: ChildProcess): Promise<string> {
  if (stdout === null) throw new Error('no output');
  for await (const line of createInterface({ input: stdout })) return line;
  throw new Error('it ended before it said anything');
}

const ended = (id: string) => until(() => receiver.taken(id).some(({ body }) => body.status !== 'processing'));

describe('darkroom bridge', () => {
  it('runs jobs that producers push with LPUSH, until SIGTERM', async () => {
    const folder = await tempFolder();
    const bridge = start(['bridge'], environment(folder));
    expect(await firstLine(bridge)).toBe(`darkroom bridges redis to 127.0.0.1:${serving.server.port}`);
    await producer.lPush('sdxl_queue', JSON.stringify(quickPayload('pushed')));
    await ended('pushed');
    expect(await readdir(join(folder, 'sdxl_image_fast', 'ann', 'pushed'))).toEqual(['0.png']);
    bridge.kill('SIGTERM');
    expect(await once(bridge, 'exit')).toEqual([0, null]);
  });

  it('runs jobs over REST as well', async () => {
    const front = await startUpstashFront(redis.url);
    onTestFinished(() => front.stop());
    const names = { BRIDGE_PREFIX: 'rest:', BRIDGE_WAN_QUEUE: 'rest_queue' };
    const rest = { REDIS_URL: '', UPSTASH_REDIS_REST_URL: front.url, UPSTASH_REDIS_REST_TOKEN: front.token };
    start(['bridge'], environment(await tempFolder(), { ...names, ...rest }));
    await producer.lPush('rest_queue', JSON.stringify(quickPayload('rest')));
    await ended('rest');
    expect(receiver.taken('rest').map(({ body }) => body.status)).toEqual(['processing', 'completed']);
  });

  it('fails at the start if the queue does not answer', async () => {
    const rest = { REDIS_URL: '', UPSTASH_REDIS_REST_URL: 'http://127.0.0.1:1', UPSTASH_REDIS_REST_TOKEN: 't' };
    const { code, stderr } = await darkroom(['jobs', 'list'], environment('', rest));
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^darkroom: Upstash \(UPSTASH_REDIS_REST_URL\) does not answer: .*\n$/),
    ]);
  });

  it('reads jobs from standard input without Redis, and ends after the last', async () => {
    const folder = await tempFolder();
    const bridge = start(['bridge'], environment(folder, { REDIS_URL: '' }));
    bridge.stdin?.end(`${JSON.stringify(quickPayload('typed'))}\n\nnot json\n`);
    expect(await once(bridge, 'exit')).toEqual([0, null]);
    expect(receiver.taken('typed').map(({ body }) => body.status)).toEqual(['processing', 'completed']);
  });

  it('reports every bad variable, and repeats no secret', async () => {
    const { code, stderr } = await darkroom(
      ['bridge'],
      environment('', { REDIS_URL: 'http://user:password@host', CALLBACK_SECRET: 'secret', BRIDGE_SLOTS: '0' }),
    );
    expect(code).toBe(1);
    expect(stderr).toContain('REDIS_URL: must begin with redis:// or rediss://');
    expect(stderr).toContain('CALLBACK_SECRET: must be whsec_ and base64 of 24 to 64 bytes');
    expect(stderr).toContain('BRIDGE_SLOTS "0": ');
    expect(stderr).not.toContain('password');
  });

  const pem = (name: string) => fileURLToPath(new URL(`../fixtures/tls/access/${name}.pem`, import.meta.url));

  it.each([
    ['open', {}],
    [
      'guarded',
      {
        TLS_CERT: pem('server'),
        TLS_KEY: pem('server-key'),
        TLS_CLIENT_CA: pem('authority'),
        AUTH_TOKEN: 'the-operators-token',
      },
    ],
  ])('runs inside an %s server with --with-bridge', async (name, access) => {
    const folder = await tempFolder();
    const args = ['serve', '--with-bridge', '--listen', '127.0.0.1:0', '--sdxl', inject('tinySdxl'), '--device', 'cpu'];
    const names = { BRIDGE_SDXL_QUEUE: `${name}_queue`, BRIDGE_PREFIX: `${name}:`, DARKROOM_SERVER: '' };
    const server = start(args, environment(folder, { ...names, ...access }));
    await producer.lPush(`${name}_queue`, JSON.stringify(quickPayload(`inside-${name}`)));
    await ended(`inside-${name}`);
    server.kill('SIGTERM');
    expect(await once(server, 'exit')).toEqual([0, null]);
    const alone = await darkroom(args, environment(folder, { REDIS_URL: '' }));
    expect([alone.code, alone.stderr]).toEqual([
      1,
      'darkroom: --with-bridge needs a queue: set REDIS_URL, or UPSTASH_REDIS_REST_URL and its token\n',
    ]);
  });
});

describe('darkroom jobs', () => {
  it('lists, shows, cancels and replays jobs', async () => {
    const env = environment(await tempFolder(), { BRIDGE_PREFIX: 'jobs:', BRIDGE_SDXL_QUEUE: 'jobs_queue' });
    const jobs = (...args: string[]) => darkroom(['jobs', ...args], env);
    expect((await jobs('cancel', 'not-yet')).stdout).toBe('not-yet has not come yet and ends when it comes\n');
    for (const payload of [
      JSON.stringify(quickPayload('not-yet')),
      JSON.stringify(quickPayload('fine')),
      '{"no": 1}',
    ]) {
      await producer.lPush('jobs_queue', payload);
    }
    expect((await jobs('list')).stdout).toMatch(/^3 pushed, 0 waiting, /);
    start(['bridge'], env);
    await ended('fine');
    await ended('not-yet');
    const listed = JSON.parse((await jobs('list', '--json')).stdout) as { jobs: { id: string; state: string }[] };
    expect(listed.jobs.map(({ id, state }) => [id, state])).toEqual([
      ['fine', 'completed'],
      ['not-yet', 'cancelled'],
    ]);
    const text = (await jobs('list', '--state', 'cancelled')).stdout;
    expect(text).toMatch(/\nnot-yet {2}cancelled {2}sdxl_image_fast +1 tried {2}\d{4}-.* ann {2}callback d/);
    expect(JSON.parse((await jobs('show', 'fine')).stdout)).toMatchObject({ id: 'fine', state: 'completed', run: '1' });
    const told = JSON.stringify({ error_message: 'Invalid parameters: type "nope" is no job type' });
    await producer.hSet('jobs:job:not-yet', { state: 'failed', callback: told });
    expect((await jobs('list')).stdout).toMatch(
      /\nnot-yet {2}failed .* {2}Invalid parameters: type "nope" is no job type\n/,
    );
    await producer.hSet('jobs:job:not-yet', 'state', 'cancelled');
    await producer.hSet('jobs:job:fine', 'last_error', 'no server answers');
    for (const [state, isShown] of [
      ['failed', true],
      ['completed', false],
    ] as const) {
      await producer.hSet('jobs:job:fine', 'state', state);
      expect((await jobs('list')).stdout.includes('no server answers')).toBe(isShown);
    }
    expect((await jobs('show', 'nobody')).stderr).toBe('darkroom: job "nobody" is not known to the queue\n');
    expect((await jobs('cancel', 'fine')).stdout).toBe('fine had ended before\n');
    expect(await jobs('replay', 'nobody')).toMatchObject({ code: 1, stdout: 'nobody is not known\n' });
    expect(await jobs('replay', 'not-yet', 'fine', 'nobody')).toMatchObject({
      code: 1,
      stdout: 'not-yet runs again\nfine is called back again\nnobody is not known\n',
    });
    await until(() => receiver.taken('not-yet').some(({ body }) => body.status === 'completed'));
    expect((await jobs('dead')).stdout).toMatch(/^payload {3}\S+ {2}id must be a string .*: "\{\\"no\\": 1\}"\n$/);
  });

  it('names the variables if no queue is set', async () => {
    const { code, stderr } = await darkroom(['jobs', 'list'], environment('', { REDIS_URL: '' }));
    expect([code, stderr]).toEqual([1, 'darkroom: no queue: set REDIS_URL, or UPSTASH_REDIS_REST_URL and its token\n']);
  });
});
