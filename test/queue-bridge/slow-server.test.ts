import { connect as connectTcp, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { listJobs } from '../../src/client/client.js';
import { ServerPool } from '../../src/queue-bridge/server-pool.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { type Serving, serve, silent, until } from '../support/serving.js';

/** A TCP proxy that opens each connection after a delay. */
async function delayed(port: number, delay: { ms: number }): Promise<number> {
  const proxy = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    void sleep(delay.ms).then(() => {
      const upstream = connectTcp(port, '127.0.0.1');
      upstream.on('error', () => socket.destroy());
      socket.on('close', () => upstream.destroy());
      upstream.on('close', () => socket.destroy());
      socket.pipe(upstream).pipe(socket);
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    proxy.close();
  });
  const address = proxy.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

it.each<[string, number, (first: Serving) => Promise<void>]>([
  ['another one answers a new bridge first', 1500, async () => undefined],
  ['it drains', 0, async ({ server }) => void server.drain()],
  [
    'it drains and has ended the job, which others have looked at',
    0,
    async ({ server, client }) => {
      for await (const _ of client.jobs.watchJob({ jobId: 'wanderer', afterSequence: 0n }, client.metadata));
      void server.drain();
    },
  ],
])('leaves a job to the server that has it, also when %s', async (_, ms, begin) => {
  const [first, second] = [await serve(), await serve()];
  try {
    const delay = { ms: 0 };
    const near = await delayed(first.server.port, delay);
    const { push, ended, start } = await bridging(`127.0.0.1:${near}`);
    const before = await start();
    await push(quickPayload('wanderer', { config: { width: 256, height: 256, steps: 24 } }));
    const hasIt = async ({ client }: Serving) => {
      const { jobs } = await listJobs(client, {}, 5000);
      return jobs.some(({ jobId }) => jobId === 'wanderer');
    };
    await until(() => hasIt(first));
    await before.stop();
    await begin(first);
    delay.ms = ms;
    const servers = `127.0.0.1:${near},127.0.0.1:${second.server.port}`;
    await start({ variables: { DARKROOM_SERVER: servers } });
    expect((await ended('wanderer')).status).toBe('completed');
    expect(await hasIt(second)).toBe(false);
  } finally {
    await first.stop();
    await second.stop();
  }
});

it('leaves a job to its only server while that drains', async () => {
  const only = await serve();
  try {
    const { push, ended, start } = await bridging(`127.0.0.1:${only.server.port}`);
    const before = await start();
    await push(quickPayload('first', { config: { width: 256, height: 256, steps: 24 } }));
    await until(async () => (await listJobs(only.client, {}, 5000)).jobs.length === 1);
    await before.stop();
    await push(quickPayload('second'));
    const drained = only.server.drain();
    await start();
    expect((await ended('first')).status).toBe('completed');
    await drained;
  } finally {
    await only.stop();
  }
});

it('gives a job to the server that has its model loaded, not to one that loads it', async () => {
  const servers = [await serve({}, { startsLater: true }), await serve()];
  const [loading = '', ready = ''] = servers.map(({ server }) => `127.0.0.1:${server.port}`);
  const pool = new ServerPool({ addresses: [loading, ready], connection: {}, log: silent, onChange: () => undefined });
  try {
    // Both were asked for their state.
    for (const address of [loading, ready]) expect((await pool.at(address, 'sdxl'))?.address).toBe(address);
    expect(pool.leastBusy('sdxl')?.address).toBe(ready);
  } finally {
    pool.close();
    for (const server of servers) await server.stop();
  }
});
