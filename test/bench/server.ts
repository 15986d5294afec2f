/**
 * npm run bench -- server [--json] [--sdxl FOLDER] [--device cpu] [--side 2304] [--runs 30]
 *
 * Runs the server as its users do, a process of its own, and measures it from outside. All figures of one table come from one
 * run. Without --sdxl the model is the tiny one, whose engine time is short: the hardest case for the overhead.
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
  },
});

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
const figures: Figure[] = [];
const report = (what: string, value: number, unit: string, note = '') => figures.push({ what, value, unit, note });
try {
  await measure(options.sdxl ?? (await writeTinySdxl(join(folder, 'tiny-sdxl'))));
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

/** From the call to the last event, against what the engine says it spent on the job. */
async function measureOverhead(client: DarkroomClient, size: Partial<GenerateRequest>): Promise<void> {
  const overheads: number[] = [];
  const engines: number[] = [];
  const runs = Number(options.runs);
  for (let run = -3; run < runs; run += 1) {
    const request = { ...size, prompt: 'a red circle on a blue background', seed: BigInt(run + 10) };
    const begin = performance.now();
    let engineMs = 0;
    for await (const { event } of generate(client, request)) {
      if (event?.$case === 'completed') engineMs = (event.value.metadata?.generationSeconds ?? 0) * 1000;
    }
    if (run < 0) continue; // the first ones warm up
    overheads.push(performance.now() - begin - engineMs);
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
    process.stdout.write(`${what.padEnd(36)} ${value.toFixed(1).padStart(9)} ${unit.padEnd(4)} ${note}\n`);
  }
}
