import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { connect } from '../../src/client/client.js';
import type { Gateway } from '../../src/web/gateway.js';
import { ask, gateway } from '../support/gateway.js';
import { freePort } from '../support/redis-server.js';
import { type Serving, serve, until } from '../support/serving.js';

const job = { prompt: 'a red circle', jobType: 'sdxl_image_fast', width: 64, height: 64, steps: 3, seed: 5 };
const token = 'a-token-of-the-tests';

let serving: Serving;
let web: Gateway;

beforeAll(async () => {
  serving = await serve({ AUTH_TOKEN: token });
  web = await gateway(serving.client);
});
afterAll(async () => {
  await web.close();
  await serving.stop();
});

interface SentEvent {
  readonly id: string;
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Reads events of a job. @param most the stream is dropped after so many */
async function eventsOf(url: string, after = '0', most = Number.POSITIVE_INFINITY): Promise<readonly SentEvent[]> {
  const abort = new AbortController();
  const response = await fetch(url, { headers: { 'last-event-id': after }, signal: abort.signal });
  expect(response.headers.get('content-type')).toBe('text/event-stream');
  const events: SentEvent[] = [];
  let text = '';
  try {
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString();
      const blocks = text.split('\n\n');
      text = blocks.pop() ?? '';
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split('\n').map((line) => line.split(/: (.*)/s)));
        if (fields.event === undefined) continue;
        events.push({ id: fields.id ?? '', event: fields.event, data: JSON.parse(fields.data ?? '') });
        if (events.length >= most) {
          abort.abort();
          return events;
        }
      }
    }
  } catch (error) {
    if (!abort.signal.aborted) throw error;
  }
  return events;
}

/** A request with headers that fetch does not let one set. */
function rawStatus(url: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on('error', reject);
    request.end();
  });
}

describe('a job over HTTP', () => {
  it('runs without the request that started it, and a stream dropped at any place goes on without a gap', async () => {
    const started = await ask(`${web.url}/api/jobs`, { ...job, jobId: 'drops' });
    expect(started).toEqual({ status: 202, body: { jobId: 'drops' } });
    const url = `${web.url}/api/jobs/drops/events`;
    const whole = await eventsOf(url);
    expect(whole.map(({ event }) => event)).toEqual(expect.arrayContaining(['started', 'progress', 'assetChunk']));
    expect(whole.at(-1)?.event).toBe('completed');
    for (let n = 1; n < whole.length; n += 1) {
      const before = await eventsOf(url, '0', n);
      const rest = await eventsOf(url, before.at(-1)?.id);
      expect([...before, ...rest].map(({ id }) => id)).toEqual(whole.map(({ id }) => id));
    }
  });

  it('has its file, byte for byte, and a thumbnail of it', async () => {
    await ask(`${web.url}/api/jobs`, { ...job, jobId: 'file' });
    const events = await eventsOf(`${web.url}/api/jobs/file/events`);
    const file = Buffer.from(await (await fetch(`${web.url}/api/jobs/file/files/0`)).arrayBuffer());
    const sha256 = createHash('sha256').update(file).digest('base64');
    expect(events.at(-1)?.data).toMatchObject({ completed: { assets: [{ sha256 }] } });
    const small = Buffer.from(await (await fetch(`${web.url}/api/jobs/file/files/0?size=thumbnail`)).arrayBuffer());
    expect(await sharp(small).metadata()).toMatchObject({ format: 'webp', width: 64 });
    const missing = await ask(`${web.url}/api/jobs/file/files/7`);
    expect(missing.status).toBe(404);
  });

  it('is cancelled by a call of its own', async () => {
    await ask(`${web.url}/api/jobs`, { ...job, jobId: 'long', width: 512, height: 512, steps: 400 });
    await ask(`${web.url}/api/jobs/long/cancel`, {});
    const events = await eventsOf(`${web.url}/api/jobs/long/events`);
    expect(events.at(-1)?.data).toMatchObject({ failed: { error: { reason: 'CANCELLED' } } });
  });

  it.each([
    [{ prompt: 7 }, 'prompt'],
    [{ prompt: 'a', colour: 'red' }, 'body'],
    [{ prompt: 'a', jobType: 'oil_painting' }, 'jobType'],
    [{ prompt: 'a', references: [{ image: 'not base64!' }] }, 'references.0.image'],
    [{ ...job, steps: 5000 }, 'steps'],
  ])('%j is refused by its field', async (body, field) => {
    const answer = await ask(`${web.url}/api/jobs`, body);
    expect(answer).toMatchObject({ status: 400, body: { error: { violations: [{ field }] } } });
  });
});

describe('what another site can reach', () => {
  it.each([
    ['a name that points to this machine', { host: 'rebound.example' }],
    ['a form or a script of its own', { origin: 'http://other.example' }],
    ['an image tag', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' }],
  ])('nothing, with %s', async (_, headers) => {
    expect(await rawStatus(`${web.url}/api/status`, headers)).toBe(403);
    expect(await rawStatus(`${web.url}/api/status`, { origin: web.url })).toBe(200);
  });

  it('no call without a preflight', async () => {
    const answer = await fetch(`${web.url}/api/jobs`, {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: JSON.stringify(job),
    });
    expect(answer.status).toBe(400);
  });
});

describe('tokens', () => {
  it('on loopback the own one serves, and a given one is passed on', async () => {
    expect((await ask(`${web.url}/api/status`)).status).toBe(200);
    const wrong = await ask(`${web.url}/api/status`, undefined, { authorization: 'Bearer wrong-token' });
    expect(wrong).toMatchObject({ status: 401, body: { error: { reason: 'UNAUTHENTICATED' } } });
  });

  it('elsewhere every call brings its own', async () => {
    const open = await gateway(serving.client, { WEB_LISTEN: '0.0.0.0:0' });
    onTestFinished(() => open.close());
    const url = open.url.replace('0.0.0.0', '127.0.0.1');
    expect((await ask(`${url}/api/status`)).status).toBe(401);
    // Before the body is read: it is no JSON.
    const body = new Blob(['{'], { type: 'application/json' });
    const headers = { authorization: 'Bearer made-up-token' };
    expect((await fetch(`${url}/api/jobs`, { method: 'POST', body, headers })).status).toBe(401);
    expect((await ask(`${url}/api/status`, undefined, { authorization: `Bearer ${token}` })).status).toBe(200);
  });

  it('elsewhere a server that takes calls without one is not opened to others', async () => {
    const bare = await serve({}, { startsLater: true });
    const open = await gateway(bare.client, { WEB_LISTEN: '0.0.0.0:0' });
    onTestFinished(async () => {
      await open.close();
      await bare.stop();
    });
    const url = open.url.replace('0.0.0.0', '127.0.0.1');
    const answer = await ask(`${url}/api/status`, undefined, { authorization: 'Bearer made-up-token' });
    expect(answer).toMatchObject({ status: 403, body: { error: { message: expect.stringContaining('TOKENS_FILE') } } });
  });
});

describe('a server that does not answer', () => {
  it('is said in words, and calls work as soon as it is there', async () => {
    const port = await freePort();
    const client = connect(`127.0.0.1:${port}`);
    const early = await gateway(client);
    onTestFinished(async () => {
      await early.close();
      client.close();
    });
    const answer = await ask(`${early.url}/api/status`);
    expect(answer).toMatchObject({ status: 503, body: { error: { reason: 'UNREACHABLE' } } });
    const late = await serve({ DARKROOM_LISTEN: `127.0.0.1:${port}` }, { startsLater: true });
    onTestFinished(() => late.stop());
    await until(async () => (await ask(`${early.url}/api/status`)).status === 200);
  });
});
