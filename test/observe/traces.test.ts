import { Writable } from 'node:stream';
import { expect, inject, it, onTestFinished } from 'vitest';
import { convertToGguf } from '../../src/enhancer/qwen/convert.js';
import { openTraces } from '../../src/observe/traces.js';
import { RedisRunner } from '../../src/queue-bridge/queue/redis-runner.js';
import { ScriptQueue } from '../../src/queue-bridge/queue/script-queue.js';
import { parseTraceparent } from '../../src/std/traceparent.js';
import { bridging, quickPayload } from '../support/bridging.js';
import { type OtlpReceiver, startOtlpReceiver } from '../support/otlp-receiver.js';
import { freePort, startRedis } from '../support/redis-server.js';
import { completed, outcomeOf, quick, serve, silent, until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

const PROMPT = 'a lighthouse on a cliff';
const traceId = 'abcdef0123456789abcdef0123456789';
const producer = '1234567890abcdef';

const collector = async (): Promise<OtlpReceiver> => {
  const receiver = await startOtlpReceiver();
  onTestFinished(() => receiver.stop());
  return receiver;
};
const variables = (endpoint: string) => ({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, TRACE_PROMPTS: false });

/** A stream that keeps the log's lines. */
function logLines() {
  const lines: Readonly<Record<string, unknown>>[] = [];
  const stream = new Writable({
    write(chunk, _, done) {
      lines.push(JSON.parse(String(chunk)) as Readonly<Record<string, unknown>>);
      done();
    },
  });
  return { lines, stream };
}

it('follows an enhanced video from its payload to its callback, over a bridge that was replaced', async () => {
  const otlp = await collector();
  const { path: gguf } = await convertToGguf(inject('tinyQwen'), { cacheFolder: await tempFolder() });
  const { lines, stream } = logLines();
  const serving = await serve(
    { WAN_PATH: inject('tinyWan'), QWEN_PATH: gguf, OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url },
    { logTo: stream },
  );
  const redis = await startRedis();
  onTestFinished(() => redis.stop());
  let isUp = false;
  const { start, push, ended, receiver, queue } = await bridging(`127.0.0.1:${serving.server.port}`, {
    answer: ({ status }) => (status === 'processing' || isUp ? 200 : 503),
    queue: ({ lanes }) =>
      new ScriptQueue(new RedisRunner(redis.url, 60_000), {
        lanes,
        callsBack: true,
        retentionMs: 60_000,
        prefix: 't:',
      }),
  });
  const traces = await openTraces(variables(otlp.url), 'darkroom-bridge', silent);
  const first = await start({ traces });
  const traceparent = `00-${traceId}-${producer}-01`;
  const payload = quickPayload('traced', { type: 'video7b_fast_enhanced', prompt: PROMPT, config: { frame_num: 5 } });
  await push({ ...payload, metadata: { traceparent } }, 'wan_queue');
  await until(async () => (await queue.show('traced'))?.cb_error !== undefined);
  await first.stop();
  isUp = true;
  const second = await start({ traces });
  expect(await ended('traced')).toMatchObject({ status: 'completed', metadata: { enhancement_strategy: 'qwen' } });
  await second.stop();
  await traces?.stop();
  await serving.stop();

  const { spans } = otlp;
  expect(new Set(spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
  const named = new Map(spans.map(({ spanId, name }) => [spanId, name]));
  const links = spans.map(
    ({ service, name, parentSpanId }) =>
      `${service.replace('darkroom-', '')} ${name} < ${parentSpanId === producer ? 'payload' : named.get(parentSpanId)}`,
  );
  const call = 'darkroom.v1.InferenceService/Generate';
  expect(new Set(links)).toEqual(
    new Set([
      'bridge claim < payload',
      'bridge process < payload',
      'bridge generate < process',
      `server ${call} < generate`,
      `server job < ${call}`,
      'server enhance < job',
      'server queue < job',
      'server run < job',
      'server encode < run',
      'server denoise < run',
      'server decode < run',
      'server media < run',
      'bridge store < process',
      'bridge upload < store',
      'bridge callback < payload',
    ]),
  );
  // The video, its poster and its thumbnail.
  expect(links.filter((link) => link.startsWith('bridge upload'))).toHaveLength(3);
  for (const { startNs, endNs } of spans) expect(endNs >= startNs).toBe(true);
  expect(spans.find(({ name }) => name === 'job')?.attributes).toMatchObject({
    'gen_ai.output.type': 'video',
    'darkroom.job.type': 'video7b_fast_enhanced',
  });
  expect(JSON.stringify(spans.map(({ attributes }) => attributes))).not.toContain(PROMPT);
  // The receiver's own span would be a child of the delivery.
  const last = receiver.taken('traced').at(-1);
  const place = parseTraceparent(last?.headers.traceparent);
  expect([place?.traceId, named.get(place?.spanId ?? '')]).toEqual([traceId, 'callback']);
  expect(lines.find(({ msg }) => msg === 'job ended')).toMatchObject({ jobId: 'traced', traceId });
});

it('begins a trace for a job whose payload names none, and has prompts only if they are asked for', async () => {
  const otlp = await collector();
  const serving = await serve({ OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url, TRACE_PROMPTS: 'true' });
  const { start, push, ended } = await bridging(`127.0.0.1:${serving.server.port}`);
  const traces = await openTraces(variables(otlp.url), 'darkroom-bridge', silent);
  const bridge = await start({ traces });
  // What cannot be read is no reason to refuse a job.
  await push({ ...quickPayload('rootless'), traceparent: 'not one' });
  expect((await ended('rootless')).status).toBe('completed');
  await bridge.stop();
  await traces?.stop();
  await serving.stop();
  const roots = otlp.spans.filter(({ parentSpanId }) => parentSpanId === '');
  expect(roots.map(({ name }) => name)).toEqual(['claim']);
  expect(new Set(otlp.spans.map((span) => span.traceId)).size).toBe(1);
  expect(otlp.spans.find(({ name }) => name === 'job')?.attributes['darkroom.prompt']).toBe('a red circle');
});

it('passes a trace on where nothing is traced', async () => {
  const { lines, stream } = logLines();
  const serving = await serve({}, { logTo: stream });
  onTestFinished(() => serving.stop());
  const { start, push, ended, receiver } = await bridging(`127.0.0.1:${serving.server.port}`);
  await start();
  const traceparent = `00-${traceId}-${producer}-00`;
  await push({ ...quickPayload('passed'), traceparent });
  await ended('passed');
  expect(receiver.taken('passed').map(({ headers }) => headers.traceparent)).toEqual([traceparent, traceparent]);
  expect(lines.find(({ msg }) => msg === 'job ended')).toMatchObject({ jobId: 'passed', traceId });
});

it('serves and stops while no collector answers', async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const { lines, stream } = logLines();
  const serving = await serve({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint }, { logTo: stream });
  expect(completed(await outcomeOf(serving.client, quick)).assets).toHaveLength(1);
  await serving.stop();
  expect(lines.filter(({ msg }) => msg === 'traces were not exported')).toHaveLength(1);
});
