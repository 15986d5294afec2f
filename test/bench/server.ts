/**
 * npm run bench -- server [--json] [--sdxl FOLDER] [--device cpu] [--side 2304] [--runs 30] [--observed]
 *
 * Runs the server as its users do, a process of its own, and measures it from outside. All figures of one table come from one
 * run. Without --sdxl the model is the tiny one, whose engine time is short: the hardest case for the overhead.
 *
 * --observed compares two servers in turns instead: one without metrics and traces, one that is scraped every 5 s and sends
 * the spans of every job to a collector.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { credentials } from '@grpc/grpc-js';
import { connect, type DarkroomClient, generate } from '../../src/client/client.js';
import { Phase } from '../../src/gen/darkroom/v1/event.js';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { HealthClient } from '../../src/gen/grpc/health/v1/health.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { startOtlpReceiver } from '../support/otlp-receiver.js';
import { freePort } from '../support/redis-server.js';
import { quantile, ready, startServer, status } from './served.js';

interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  readonly note: string;
}

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    sdxl: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    /** Of the picture whose decode blocks the engine. */
    side: { type: 'string', default: '2304' },
    runs: { type: 'string', default: '30' },
    observed: { type: 'boolean', default: false },
  },
});

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
const figures: Figure[] = [];
const report = (what: string, value: number, unit: string, note = '') => figures.push({ what, value, unit, note });
try {
  const model = options.sdxl ?? (await writeTinySdxl(join(folder, 'tiny-sdxl')));
  await (options.observed ? measureObserved(model) : measure(model));
} finally {
  await rm(folder, { recursive: true });
}
print();

async function measure(model: string): Promise<void> {
  const startedAt = performance.now();
  const args = ['--sdxl', model, '--device', options.device];
  const { server, address } = await startServer(args, { LIMIT_SIDE_PIXELS: '4096' });
  const client = connect(address);
  try {
    const listening = performance.now();
    await ready(client);
    report('start to listening', listening - startedAt, 'ms', 'process start included');
    report('start to model ready', performance.now() - startedAt, 'ms');
    const idle = await status(client);
    report('resident, server', Number(idle.residentBytes) / 2 ** 20, 'MiB', 'model ready, no job yet');
    report('resident, engine', Number(idle.models[0]?.residentBytes ?? 0) / 2 ** 20, 'MiB', 'model ready, no job yet');
    await measureOverhead(client, { width: 64, height: 64, steps: 15 });
    await measureOverhead(client, { width: 512, height: 512, steps: 4 });
    await measureCancel(client);
    await measureHealth(client, address);
  } finally {
    client.close();
    server.kill('SIGTERM');
    await once(server, 'exit');
  }
}

/** Overhead with metrics and traces on against off: a job of one server, then one of the other. */
async function measureObserved(model: string): Promise<void> {
  const otlp = await startOtlpReceiver();
  const metricsPort = await freePort();
  const args = ['--sdxl', model, '--device', options.device];
  const plain = await startServer(args, { OTEL_EXPORTER_OTLP_ENDPOINT: '' });
  const watched = await startServer(args, {
    METRICS_LISTEN: `127.0.0.1:${metricsPort}`,
    OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url,
  });
  const scrapes = setInterval(() => {
    void fetch(`http://127.0.0.1:${metricsPort}/metrics`).then((response) => response.text());
  }, 5000);
  const clients = [connect(plain.address), connect(watched.address)] as const;
  try {
    for (const client of clients) await ready(client);
    for (const size of [
      { width: 64, height: 64, steps: 15 },
      { width: 512, height: 512, steps: 4 },
    ]) {
      const overheads: readonly [number[], number[]] = [[], []];
      const engines: number[] = [];
      const runs = Number(options.runs);
      for (let run = -3; run < runs; run += 1) {
        // The second of two jobs has warmer caches, so the servers take turns.
        for (const place of run % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
          const { overheadMs, engineMs } = await overheadOf(clients[place], size, run);
          if (run < 0) continue; // the first ones warm up
          overheads[place].push(overheadMs);
          engines.push(engineMs);
        }
      }
      const what = `${size.width}x${size.height}, ${size.steps} steps`;
      const [off, on] = overheads.map((values) => quantile(values, 0.5)) as [number, number];
      const engine = quantile(engines, 0.5);
      const bound = 5 + 0.01 * engine;
      report(`engine time, ${what}`, engine, 'ms', `median of ${2 * runs}`);
      report(`overhead, off, ${what}`, off, 'ms', `median of ${runs}`);
      report(`overhead, on, ${what}`, on, 'ms', `median of ${runs}; to hold: ${bound.toFixed(1)} (5 ms + 1 %)`);
      report(`on against off, ${what}`, (engine + on) / (engine + off), '', 'whole jobs, engine time included');
    }
    const idle = await Promise.all(clients.map(status));
    const [off = 0, on = 0] = idle.map(({ residentBytes }) => Number(residentBytes) / 2 ** 20);
    report('resident, server, off', off, 'MiB', 'after the jobs');
    report('resident, server, on', on, 'MiB', `after the jobs; ${otlp.spans.length} spans came`);
  } finally {
    clearInterval(scrapes);
    for (const client of clients) client.close();
    for (const { server } of [plain, watched]) {
      server.kill('SIGTERM');
      await once(server, 'exit');
    }
    await otlp.stop();
  }
}

/** One job: from the call to the last event, less what the engine says it spent on it. */
async function overheadOf(
  client: DarkroomClient,
  size: Partial<GenerateRequest>,
  run: number,
): Promise<{ readonly overheadMs: number; readonly engineMs: number }> {
  const request = { ...size, prompt: 'a red circle on a blue background', seed: BigInt(run + 10) };
  const begin = performance.now();
  let engineMs = 0;
  for await (const { event } of generate(client, request)) {
    if (event?.$case === 'completed') engineMs = (event.value.metadata?.generationSeconds ?? 0) * 1000;
  }
  return { overheadMs: performance.now() - begin - engineMs, engineMs };
}

async function measureOverhead(client: DarkroomClient, size: Partial<GenerateRequest>): Promise<void> {
  const overheads: number[] = [];
  const engines: number[] = [];
  const runs = Number(options.runs);
  for (let run = -3; run < runs; run += 1) {
    const { overheadMs, engineMs } = await overheadOf(client, size, run);
    if (run < 0) continue; // the first ones warm up
    overheads.push(overheadMs);
    engines.push(engineMs);
  }
  const what = `${size.width}x${size.height}, ${size.steps} steps`;
  const bound = 5 + 0.01 * quantile(engines, 0.5);
  report(`engine time, ${what}`, quantile(engines, 0.5), 'ms', `median of ${runs}`);
  report(
    `overhead, ${what}`,
    quantile(overheads, 0.5),
    'ms',
    `median of ${runs}; to hold: ${bound.toFixed(1)} (5 ms + 1 %)`,
  );
}

/** From CancelJob in the middle of denoising to the end of the job's stream. */
async function measureCancel(client: DarkroomClient): Promise<void> {
  const ends: number[] = [];
  const answers: number[] = [];
  let stepMs = 0;
  for (let run = 0; run < 10; run += 1) {
    const jobId = `cancel-${run}`;
    let asked = 0;
    let lastStep = 0;
    try {
      for await (const { event } of generate(client, {
        prompt: 'a lake',
        jobId,
        width: 512,
        height: 512,
        steps: 200,
      })) {
        if (event?.$case !== 'progress' || event.value.phase !== Phase.PHASE_DENOISE) continue;
        if (event.value.step < 4) stepMs = performance.now() - lastStep;
        lastStep = performance.now();
        if (event.value.step !== 4) continue;
        asked = performance.now();
        client.jobs.cancelJob({ jobId }, () => answers.push(performance.now() - asked));
      }
    } catch {
      ends.push(performance.now() - asked);
    }
  }
  report('CancelJob answered', quantile(answers, 0.5), 'ms', 'median of 10, engine inside a step');
  report('job ended after CancelJob', quantile(ends, 0.5), 'ms', `median of 10; a step takes ${stepMs.toFixed(0)} ms`);
}

/** Health checks while the engine sits in one long run. */
async function measureHealth(client: DarkroomClient, address: string): Promise<void> {
  const side = Number(options.side);
  const health = new HealthClient(address, credentials.createInsecure());
  const latencies: number[] = [];
  let isBlocked = false;
  let blockedAt = 0;
  let blockedMs = 0;
  const job = (async () => {
    for await (const { event } of generate(client, { prompt: 'a long look', width: side, height: side, steps: 1 })) {
      if (event?.$case === 'progress' && event.value.phase === Phase.PHASE_DENOISE) {
        isBlocked = true;
        blockedAt = performance.now();
      } else if (event?.$case === 'progress' && event.value.phase === Phase.PHASE_DECODE) {
        isBlocked = false;
        blockedMs = performance.now() - blockedAt;
      }
    }
  })();
  let isOver = false;
  void job.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (!isBlocked) continue;
    const asked = performance.now();
    await new Promise<void>((resolve, reject) =>
      health.check({ service: '' }, (error) => (error ? reject(error) : resolve())),
    );
    latencies.push(performance.now() - asked);
  }
  await job;
  health.close();
  const note = `${latencies.length} checks during one run of ${(blockedMs / 1000).toFixed(1)} s`;
  report('health, p50', quantile(latencies, 0.5), 'ms', note);
  report('health, p99', quantile(latencies, 0.99), 'ms', `${note}; to hold: 20`);
}

function print(): void {
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}, device ${options.device}`;
  const model = options.sdxl ?? 'tiny SDXL (hash weights)';
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ machine, model, figures }, null, 2)}\n`);
    return;
  }
  process.stdout.write(`${machine}; ${model}\n`);
  for (const { what, value, unit, note } of figures) {
    process.stdout.write(
      `${what.padEnd(36)} ${value.toFixed(unit === '' ? 3 : 1).padStart(9)} ${unit.padEnd(4)} ${note}\n`,
    );
  }
}
