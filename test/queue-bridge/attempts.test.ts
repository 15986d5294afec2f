import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { InferenceError } from '../../src/errors.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { startInstantServer } from '../support/instant-server.js';
import { until } from '../support/serving.js';

describe('an attempt on a server that is killed', () => {
  it('does not count if no connection took the job', async () => {
    const server = await startInstantServer(Buffer.alloc(10));
    onTestFinished(() => server.close());
    const { start, push, ended, queue } = await bridging(server.address);
    await start();
    await push(quickPayload('first'));
    await ended('first');
    server.close();
    // The connection has ended by then, and the next poll of the server is seconds away.
    await sleep(100);
    await push(quickPayload('second'));
    await until(async () => (await queue.show('second'))?.last_error !== undefined);
    expect(await queue.show('second')).toMatchObject({ attempts: '0' });
  });

  it('counts if the server had the job', async () => {
    const server = await startInstantServer(Buffer.alloc(10), 60_000);
    onTestFinished(() => server.close());
    const { start, push, queue } = await bridging(server.address);
    await start();
    await push(quickPayload('held'));
    await server.called;
    server.close();
    await until(async () => (await queue.show('held'))?.last_error !== undefined);
    expect(await queue.show('held')).toMatchObject({ attempts: '1' });
  });
});

describe('an attempt on a server whose engine dies', () => {
  it.each([
    ['does not count before the engine had begun with the job', 1, '0'],
    ['counts afterwards', 2, '1'],
  ])('%s', async (_, events, attempts) => {
    const error = new InferenceError('ENGINE_CRASHED', 'the engine died', { retryAfterMs: 60_000 });
    const server = await startInstantServer(Buffer.alloc(10), 0, { events, error });
    onTestFinished(() => server.close());
    const { start, push, queue } = await bridging(server.address);
    await start();
    await push(quickPayload('job'));
    await until(async () => (await queue.show('job'))?.last_error !== undefined);
    expect(await queue.show('job')).toMatchObject({ attempts, last_error: 'the engine died' });
  });
});
