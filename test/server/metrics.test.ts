import { once } from 'node:events';
import { createConnection } from 'node:net';
import { Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { MetricsRegistry } from '../../src/observe/metrics-registry.js';
import { startMetricsServer } from '../../src/observe/metrics-server.js';
import { Scrape } from '../support/metrics.js';
import { outcomeOf, quick, type Serving, serve, silent, until } from '../support/serving.js';

const fast = { ...quick, steps: 1 };

describe('the metrics of a server', () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve({ METRICS_LISTEN: '127.0.0.1:0', LIMIT_QUEUE: '1000', JOB_RETENTION: '10' });
  });
  afterAll(() => serving.stop());

  const isTyped = (i: number) => Math.floor(i / 10) % 2 === 0;
  /** One of ten kinds of requests: most complete, some are invalid, are cancelled or fail. */
  const requestOf = (i: number): Partial<GenerateRequest> => {
    const request = {
      ...fast,
      jobId: `load-${i}`,
      prompt: `a harbour with ${i} boats`,
      labels: { user_id: `user-${i}` },
      jobType: isTyped(i) ? JobType.JOB_TYPE_SDXL_IMAGE_FAST : JobType.JOB_TYPE_UNSPECIFIED,
    };
    if (i % 10 === 3) return { ...request, width: 3 };
    if (i % 10 === 7) {
      const source = { $case: 'image', value: Buffer.from('no image') } as const;
      return {
        ...request,
        steps: 20,
        references: [{ source, type: 0, role: 0, strength: undefined, denoisingStrength: undefined }],
      };
    }
    return request;
  };

  /** Runs a job, and cancels one in ten. @returns its end as its client sees it */
  const run = async (i: number): Promise<string> => {
    const { client } = serving;
    const isCancelled = i % 10 === 9;
    const { error } = await outcomeOf(client, requestOf(i), {
      onEvent: ({ event, jobId }) => {
        if (isCancelled && event?.$case === 'queued') client.jobs.cancelJob({ jobId }, () => undefined);
      },
    });
    const type = isTyped(i) ? 'sdxl_image_fast' : 'none';
    return error === undefined ? `${type} completed none` : `${type} ended ${error.reason}`;
  };

  const load = async (from: number, count: number): Promise<readonly string[]> =>
    Promise.all(Array.from({ length: count }, (_, k) => run(from + k)));

  it('agree with what the clients of 300 mixed jobs saw, and do not grow with jobs', async () => {
    const seen = [...(await load(0, 150))];
    const half = await Scrape.of(serving.metricsUrl);
    seen.push(...(await load(150, 150)));
    const refused = seen.filter((end) => end.endsWith('INVALID_REQUEST')).length;
    let scrape = await Scrape.of(serving.metricsUrl);
    // The last event of a job leaves before the job is counted.
    await until(async () => {
      scrape = await Scrape.of(serving.metricsUrl);
      return scrape.value('darkroom_jobs_total') >= 300 - refused;
    });

    const count = (end: RegExp) => seen.filter((one) => end.test(one)).length;
    const jobs = (labels: Readonly<Record<string, string>>) => scrape.value('darkroom_jobs_total', labels);
    expect(refused).toBe(30);
    expect(scrape.value('darkroom_requests_refused_total', { method: 'Generate', reason: 'INVALID_REQUEST' })).toBe(30);
    for (const type of ['none', 'sdxl_image_fast']) {
      expect(jobs({ type, outcome: 'completed' })).toBe(count(new RegExp(`^${type} completed`)));
      expect(jobs({ type, outcome: 'cancelled', reason: 'CANCELLED' })).toBe(count(new RegExp(`^${type} .*CANCELLED`)));
      expect(jobs({ type, outcome: 'failed', reason: 'REFERENCE_INVALID' })).toBe(
        count(new RegExp(`^${type} .*REFERENCE_INVALID`)),
      );
    }
    expect(jobs({})).toBe(270);
    const done = count(/completed/);
    expect(done).toBeGreaterThanOrEqual(210);
    for (const phase of ['encode', 'denoise', 'decode', 'media']) {
      expect(scrape.value('darkroom_phase_seconds', { phase }), phase).toBeGreaterThanOrEqual(done);
    }
    expect(scrape.value('darkroom_job_seconds')).toBe(270);
    expect(scrape.value('darkroom_queue_wait_seconds')).toBeGreaterThanOrEqual(done);
    expect(scrape.value('darkroom_forwards_total')).toBeGreaterThanOrEqual(done);
    expect(scrape.value('darkroom_queue_jobs')).toBe(0);
    expect(scrape.value('darkroom_open_calls')).toBe(0);
    expect(scrape.value('darkroom_engine_state', { state: 'ready' })).toBe(1);
    expect(scrape.value('darkroom_model_loads_total', { result: 'loaded' })).toBe(1);
    expect(scrape.value('darkroom_sent_bytes_total', { method: 'Generate' })).toBeGreaterThan(0);

    expect([scrape.names, scrape.series]).toEqual([half.names, half.series]);
    const text = await (await fetch(`${serving.metricsUrl}/metrics`)).text();
    expect(text).not.toMatch(/harbour|user-\d|load-\d/);
  });

  it('name the trace of a job in OpenMetrics, for a scraper that reads it', async () => {
    const traceId = 'abcdef0123456789abcdef0123456789';
    const { client, metricsUrl } = serving;
    client.metadata.set('traceparent', `00-${traceId}-1234567890abcdef-01`);
    await outcomeOf(client, fast);
    client.metadata.remove('traceparent');
    const scrape = async (accept: string) => {
      const response = await fetch(`${metricsUrl}/metrics`, { headers: { accept } });
      return { type: response.headers.get('content-type'), text: await response.text() };
    };
    const open = await scrape('application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2');
    expect(open.type).toMatch(/^application\/openmetrics-text; version=1\.0\.0/);
    expect(open.text).toMatch(/^darkroom_phase_seconds_bucket\{.*phase="denoise".*\} \d+ # \{trace_id="abcdef/m);
    expect(open.text).toMatch(/# EOF\n$/);
    // prom-client takes "_total" from the names of counters in OpenMetrics.
    const plain = await scrape('text/plain');
    expect(plain.type).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(plain.text).toMatch(/^# TYPE darkroom_jobs_total counter$/m);
    expect(plain.text).not.toContain('trace_id');
  });
});

const ask = async (serving: Serving, path: string) => {
  const response = await fetch(`${serving.metricsUrl}${path}`);
  return `${response.status} ${(await response.text()).trim()}`;
};

describe('the health of a server over HTTP', () => {
  it('says in a sentence why no job would be taken now', async () => {
    const serving = await serve({ METRICS_LISTEN: '127.0.0.1:0', LIMIT_QUEUE: '1' }, { startsLater: true });
    onTestFinished(() => serving.stop());
    expect(await ask(serving, '/healthz')).toBe('200 ok');
    expect(await ask(serving, '/readyz')).toBe('503 model sdxl is starting');
    await serving.engine.start();
    expect(await ask(serving, '/readyz')).toBe('200 ready');
    expect(await ask(serving, '/readyz?model=sdxl')).toBe('200 ready');
    expect(await ask(serving, '/readyz?model=paint')).toBe('503 model "paint" is not served; this server has: sdxl');
    const job = outcomeOf(serving.client, { ...quick, steps: 200, jobId: 'long' });
    await until(async () => (await ask(serving, '/readyz')).startsWith('503 the queue holds 1 jobs'));
    serving.client.jobs.cancelJob({ jobId: 'long' }, () => undefined);
    expect((await job).error?.reason).toBe('CANCELLED');
    const drained = serving.server.drain();
    expect(await ask(serving, '/readyz')).toMatch(/^503 the server is draining/);
    await drained;
    expect(await ask(serving, '/nothing')).toMatch(/^404/);
  });
});

describe('an address of metrics that is taken', () => {
  it('is logged as an error, and the server goes on', async () => {
    const serving = await serve({ METRICS_LISTEN: '127.0.0.1:0' });
    onTestFinished(() => serving.stop());
    const lines: string[] = [];
    const stream = new Writable({
      write(chunk, _, done) {
        lines.push(String(chunk));
        done();
      },
    });
    const address = serving.metricsUrl.replace('http://', '');
    const second = await serve({ METRICS_LISTEN: address }, { logTo: stream });
    onTestFinished(() => second.stop());
    expect(
      lines.filter((line) => line.includes('metrics are not served: METRICS_LISTEN cannot be bound')),
    ).toHaveLength(1);
    expect((await outcomeOf(second.client, fast)).error).toBeUndefined();
  });

  it('may be of a name that does not resolve', async () => {
    const { port } = await startMetricsServer({
      address: 'no-such-host.invalid:9464',
      variable: 'METRICS_LISTEN',
      registry: new MetricsRegistry(),
      problem: () => undefined,
      log: silent,
    });
    expect(port).toBeUndefined();
  });
});

describe('the metrics server', () => {
  it('answers a probe while others hold all connections and never end their requests', async () => {
    const registry = new MetricsRegistry();
    const address = '127.0.0.1:0';
    const options = { address, variable: 'METRICS_LISTEN', registry, problem: () => undefined, log: silent };
    const { port = 0, close } = await startMetricsServer(options);
    const slow = await Promise.all(
      Array.from({ length: 70 }, async () => {
        const socket = createConnection(port, '127.0.0.1');
        socket.on('error', () => undefined);
        await once(socket, 'connect');
        socket.write('GET /metrics HTTP/1.1\r\n');
        return socket;
      }),
    );
    const response = await fetch(`http://127.0.0.1:${port}/healthz`);
    expect(await response.text()).toBe('ok\n');
    for (const socket of slow) socket.destroy();
    await close();
  });

  it('collects once for scrapes that wait together, and anew for later ones', async () => {
    const registry = new MetricsRegistry();
    let collected = 0;
    registry.gauge({
      name: 'darkroom_test',
      help: 'A slow one.',
      async collect() {
        collected += 1;
        await new Promise((resolve) => setTimeout(resolve, 20));
        this.set(collected);
      },
    });
    const texts = await Promise.all(Array.from({ length: 50 }, () => registry.expose()));
    expect(collected).toBe(2);
    expect(new Set(texts.map(({ text }) => text)).size).toBe(2);
    expect((await registry.expose()).text).toMatch(/darkroom_test 3/);
  });
});

describe('the status line', () => {
  it('has the uptime, the jobs and the memory of each engine', async () => {
    const lines: Readonly<Record<string, unknown>>[] = [];
    const stream = new Writable({
      write(chunk, _, done) {
        lines.push(JSON.parse(String(chunk)) as Readonly<Record<string, unknown>>);
        done();
      },
    });
    const serving = await serve({}, { logTo: stream, statusMs: 50 });
    onTestFinished(() => serving.stop());
    await outcomeOf(serving.client, fast);
    const status = () => lines.filter(({ msg }) => msg === 'status').at(-1);
    await until(() => JSON.stringify(status()).includes('"jobs":1'));
    expect(status()).toMatchObject({
      running: 0,
      waiting: 0,
      residentBytes: expect.any(Number),
      engines: [{ model: 'sdxl', state: 'ready', uptimeSeconds: expect.any(Number), jobs: 1, restarts: 0 }],
    });
  });
});
