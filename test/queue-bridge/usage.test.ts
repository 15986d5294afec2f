import { createServer, type IncomingHttpHeaders } from 'node:http';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { readBridgeConfig } from '../../src/config/bridge-config.js';
import { runBridge } from '../../src/queue-bridge/run-bridge.js';
import type { UsageBody } from '../../src/queue-bridge/usage/usage-body.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { type InstantServer, startInstantServer } from '../support/instant-server.js';
import { Scrape } from '../support/metrics.js';
import { startReceiver } from '../support/receiver.js';
import { silent, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { listening } from '../support/upstash-front.js';

let server: InstantServer;
beforeAll(async () => {
  server = await startInstantServer(Buffer.alloc(1000, 7));
});
afterAll(() => server.close());

const secret = `whsec_${Buffer.alloc(24, 5).toString('base64')}`;

interface Received {
  readonly headers: IncomingHttpHeaders;
  readonly raw: string;
  readonly body: UsageBody;
}

/** A receiver of usage records. @param status of the answer to each; 0: none */
async function usageReceiver(status: (tries: number) => number = () => 200) {
  const received: Received[] = [];
  const http = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const raw = Buffer.concat(parts).toString('utf8');
    received.push({ headers: request.headers, raw, body: JSON.parse(raw) as UsageBody });
    const answer = status(received.length);
    if (answer !== 0) response.writeHead(answer).end();
  });
  const port = await listening(http);
  onTestFinished(async () => {
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  });
  return { url: `http://127.0.0.1:${port}/usage`, received };
}

it('a usage record of a job says who ran it and what it took, signed, under one id for all attempts', async () => {
  const { url, received } = await usageReceiver((tries) => (tries === 1 ? 503 : 200));
  const { start, push, ended, queue } = await bridging(server.address, {
    variables: { USAGE_URL: url, USAGE_TOKEN: 'usage-token', USAGE_SECRET: secret },
  });
  await start();
  await push(quickPayload('used'));
  const { assets } = await ended('used');
  await until(async () => (await queue.counts()).usage === 0);
  expect(received.map(({ headers }) => headers['webhook-id'])).toEqual(['used:1:usage', 'used:1:usage']);
  expect(received[1]?.raw).toBe(received[0]?.raw);
  expect(received[0]?.headers.authorization).toBe('Bearer usage-token');
  expect(() =>
    new Webhook(secret).verify(received[1]?.raw ?? '', received[1]?.headers as Record<string, string>),
  ).not.toThrow();
  expect(received[0]?.body).toMatchObject({
    job_id: 'used',
    run: 1,
    attempts: 1,
    worker_id: expect.stringMatching(/:\d+:/),
    server: server.address,
    job_type: 'sdxl_image_fast',
    user_id: 'ann',
    success: true,
    error_type: null,
    generation_time: 0,
    vram_used_gb: null,
    assets,
    total_size_mb: 0.001,
    timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
  });
});

it('a job that fails has one, too, and a payload that never ran has none', async () => {
  const { url, received } = await usageReceiver();
  const { start, push, ended, queue } = await bridging(server.address, { variables: { USAGE_URL: url } });
  await start();
  await push(quickPayload('invalid', { type: 7 }));
  await ended('invalid');
  expect(await queue.cancel('cancelled', '{}')).toBe('noted');
  await push(quickPayload('cancelled'));
  await ended('cancelled');
  await until(() => received.length > 0);
  expect(received.map(({ body }) => [body.job_id, body.success, body.error_type])).toEqual([
    ['cancelled', false, 'CANCELLED'],
  ]);
  expect((await queue.counts()).usage).toBe(0);
});

it('usage records that nobody takes do not hold back a callback', async () => {
  const { url, received } = await usageReceiver(() => 0);
  const { start, push, ended, queue } = await bridging(server.address, {
    variables: { USAGE_URL: url, CALLBACK_CONCURRENCY: '1', BRIDGE_SLOTS: '2' },
  });
  await start();
  for (let i = 0; i < 20; i += 1) await push(quickPayload(`held-${i}`));
  for (let i = 0; i < 20; i += 1) expect((await ended(`held-${i}`)).status).toBe('completed');
  // One is in flight, and the others wait for it.
  expect(received).toHaveLength(1);
  // A callback is forgotten once its answer was read.
  await until(async () => (await queue.counts()).callbacks === 0);
  expect(await queue.counts()).toMatchObject({ callbacks: 0, usage: 20 });
});

it('the metrics of a bridge agree with what went through it', async () => {
  const callbacks = await startReceiver((body, tries) => (body.job_id === 'late' && tries < 3 ? 503 : 200));
  onTestFinished(() => callbacks.stop());
  const usage = await usageReceiver();
  const config = readBridgeConfig(
    {},
    {
      DARKROOM_SERVER: server.address,
      CALLBACK_URL: callbacks.url,
      CALLBACK_RETRY_MS: '20',
      USAGE_URL: usage.url,
      STORAGE_FOLDER: await tempFolder(),
      BRIDGE_METRICS_LISTEN: '127.0.0.1:0',
    },
  );
  const { queue, bridge, metricsPort, stop } = await runBridge({ config, log: silent });
  onTestFinished(stop);
  const url = `http://127.0.0.1:${metricsPort}`;
  const push = (payload: unknown) => queue.push('sdxl_queue', JSON.stringify(payload));
  for (let i = 0; i < 20; i += 1) await push(quickPayload(`job-${i}`));
  await push(quickPayload('late'));
  await push(quickPayload('odd', { type: `no_type_${'x'.repeat(40)}` }));
  await push('no id');
  await until(async () => {
    const { pushed, waiting, leased, callbacks: due, usage: records } = await queue.counts();
    return bridge.running + pushed + waiting + leased + due + records === 0;
  });

  const scrape = await Scrape.of(url);
  const jobs = (stage: string, type = 'sdxl_image_fast') => scrape.value('darkroom_bridge_jobs_total', { type, stage });
  for (const stage of ['admitted', 'claimed', 'generated', 'stored', 'completed']) expect(jobs(stage), stage).toBe(21);
  expect([jobs('refused', 'other'), jobs('rejected', 'other')]).toEqual([1, 1]);
  const deliveries = (labels: Readonly<Record<string, string>>) =>
    scrape.value('darkroom_bridge_deliveries_total', labels);
  const answered = callbacks.received.filter(({ status }) => status === 200).length;
  expect(deliveries({ destination: 'callback', result: 'delivered' })).toBe(answered);
  expect(deliveries({ destination: 'callback', result: 'retry' })).toBe(callbacks.received.length - answered);
  expect(deliveries({ destination: 'usage', result: 'delivered' })).toBe(usage.received.length);
  expect(scrape.value('darkroom_bridge_callback_seconds', { kind: 'terminal' })).toBe(22);
  expect(scrape.value('darkroom_bridge_outbox_entries')).toBe(0);
  expect(scrape.value('darkroom_bridge_dead_letters', { kind: 'payload' })).toBe(1);
  expect(scrape.value('darkroom_bridge_leases')).toBe(0);
  const text = await (await fetch(`${url}/metrics`)).text();
  expect(text).not.toMatch(/job-\d|no_type_|\bann\b/);

  const ask = async (path: string) => {
    const response = await fetch(`${url}${path}`);
    return `${response.status} ${(await response.text()).trim()}`;
  };
  expect(await ask('/readyz')).toBe('200 ready');
  expect(await ask('/readyz?model=wan')).toBe('200 ready');
  expect(await ask('/readyz?model=paint')).toBe('503 lane "paint" is none of this bridge\'s; it has sdxl, wan');
});
