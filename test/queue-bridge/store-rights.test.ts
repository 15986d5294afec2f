import { createClient } from 'redis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readBridgeConfig } from '../../src/config/bridge-config.js';
import { openQueue } from '../../src/queue-bridge/queue/open-queue.js';
import { runBridge } from '../../src/queue-bridge/run-bridge.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { type RedisServer, startRedis } from '../support/redis-server.js';
import { type Serving, serve, silent, until } from '../support/serving.js';

let redis: RedisServer;
let serving: Serving;
let address: string;

/** The owner's commands. */
async function command(...args: string[]): Promise<unknown> {
  const client = createClient({ url: redis.url });
  await client.connect();
  try {
    return await client.sendCommand(args);
  } finally {
    client.destroy();
  }
}

const urlOf = (user: string) => redis.url.replace('//', `//${user}:word@`);

beforeAll(async () => {
  redis = await startRedis();
  serving = await serve();
  address = `127.0.0.1:${serving.server.port}`;
  await command('ACL', 'SETUSER', 'silent', 'on', '>word', '~*', '+@all', 'resetchannels');
  await command('ACL', 'SETUSER', 'reader', 'on', '>word', '~*', '&*', '+@read', '+@connection', '+@scripting');
});

afterAll(async () => {
  await serving.stop();
  await redis.stop();
});

describe('a user without rights to channels', () => {
  it('runs every job once: progress is published on a best effort', async () => {
    const variables = {
      REDIS_URL: urlOf('silent'),
      BRIDGE_LEASE_MS: '1000',
      BRIDGE_PROGRESS_MS: '100',
      BRIDGE_PREFIX: 'a:',
    };
    const { start, push, ended, queue } = await bridging(address, { variables, queue: openQueue });
    await start();
    await push(quickPayload('slow', { config: { width: 256, height: 256, steps: 60 } }));
    expect((await ended('slow')).status).toBe('completed');
    expect(await queue.show('slow')).toMatchObject({ attempts: '1', state: 'completed' });
  });

  it('is reported by the check of the store', async () => {
    const queue = openQueue(readBridgeConfig({}, { REDIS_URL: urlOf('silent') }));
    const problems = await queue.check();
    await queue.close();
    expect(problems).toEqual({
      publish: expect.stringMatching(/can't publish to the channel|No permissions to access a channel/),
    });
  });
});

describe('a user without rights to write', () => {
  it('is found at the start', async () => {
    const config = readBridgeConfig({}, { REDIS_URL: urlOf('reader'), DARKROOM_SERVER: address });
    await expect(runBridge({ config, log: silent })).rejects.toMatchObject({
      reason: 'INVALID_REQUEST',
      message: expect.stringMatching(/^the store of the queue takes no writes: .*check its user's rights$/),
    });
  });
});

describe('a store that refuses renewals for a while', () => {
  it('costs a running job nothing', async () => {
    const variables = { REDIS_URL: redis.url, BRIDGE_LEASE_MS: '3000', BRIDGE_PROGRESS_MS: '100', BRIDGE_PREFIX: 'b:' };
    const { start, push, ended, queue } = await bridging(address, { variables, queue: openQueue });
    await start();
    await push(quickPayload('long', { config: { width: 256, height: 256, steps: 150 } }));
    await until(async () => (await queue.show('long'))?.state === 'leased');
    await command('CONFIG', 'SET', 'maxmemory', '1');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await command('CONFIG', 'SET', 'maxmemory', '0');
    expect((await ended('long')).status).toBe('completed');
    const journal = await queue.show('long');
    expect([journal?.state, journal?.last_error ?? '']).toEqual(['completed', '']);
  });
});
