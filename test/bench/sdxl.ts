/**
 * npm run bench -- sdxl [--model PATH] [--tokenizer FOLDER] [--width 256] [--height 256] [--steps 2] [--images 1] [--threads 1]
 *   [--device cpu] [--runtime auto] [--reference]
 *
 * What one picture takes, phase by phase: wall seconds, and CPU seconds (user + system of the process), which with --threads 1
 * are those of one core. Without --model it makes one of the released size from hash weights (6.9 GB in a temporary folder, a
 * minute) and needs 15 GB of memory. The last row compares what the process grew by during the image with what was planned for its runs.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { memoryAt } from '../../src/pipelines/model-memory.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { openBackend } from '../../src/runtime/backend.js';
import { runtimeNames } from '../../src/runtime/runtime-names.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import { beginNewPeak, type Lap, median, memoryRow, print, residentMemory, row, stopwatch } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    tokenizer: { type: 'string' },
    width: { type: 'string', default: '256' },
    height: { type: 'string' },
    steps: { type: 'string', default: '2' },
    images: { type: 'string', default: '1' },
    threads: { type: 'string', default: '0' },
    device: { type: 'string', default: 'cpu' },
    runtime: { type: 'string', default: 'auto' },
    reference: { type: 'boolean', default: false },
  },
});
const { device } = options;
if (device !== 'cpu' && device !== 'webgpu' && device !== 'cuda') {
  throw new Error(`device ${device} must be cpu, webgpu or cuda`);
}
const runtime = runtimeNames.find((name) => name === options.runtime);
if (runtime === undefined) throw new Error(`runtime ${options.runtime} must be one of ${runtimeNames.join(', ')}`);

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const path = options.model ?? (await writeSyntheticSdxl(join(folder, 'sdxl'), 'sdxl-base'));
  const threads = Number(options.threads);
  print(
    `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${device}, ${threads === 0 ? 'all' : threads} threads; ${options.model ?? 'released size, hash weights'}`,
  );
  await measure(path, device, threads);
} finally {
  await rm(folder, { recursive: true });
}

async function measure(path: string, on: 'cpu' | 'webgpu' | 'cuda', threads: number): Promise<void> {
  const lap = stopwatch();
  const pipeline = await createSdxlPipeline({
    path,
    tokenizer: options.tokenizer,
    backend: await openBackend({ provider: on, threads, runtime }),
  });
  row('load', lap());
  await memoryRow();
  const residentBytes = await residentMemory('VmRSS');
  await beginNewPeak();
  const width = Number(options.width);
  const height = Number(options.height ?? options.width);
  const images = Number(options.images);
  // Half the steps are run on a reference: twice as many are asked for.
  const steps = Number(options.steps) * (options.reference ? 2 : 1);
  const request = {
    prompt: 'a red circle on a blue background',
    negativePrompt: 'blurry',
    width,
    height,
    steps,
    guidanceScale: 6,
    scheduler: 'euler',
    seeds: Array.from({ length: images }, (_, k) => 1 + k),
    ...(options.reference && { init: { rgb: new Uint8Array(width * height * 3).fill(128), strength: 0.5 } }),
  };
  const perStep: Lap[] = [];
  lap();
  for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
    if (event.kind !== 'progress') continue;
    const spent = lap();
    row(`${event.phase} ${event.step}/${event.total}`, spent);
    if (event.phase === 'denoise') perStep.push(spent);
  }
  row(`median step, ${images} x CFG`, median(perStep));
  await memoryRow();
  const planned = memoryAt(pipeline.planMemory(), { width, height, frames: 1, rows: 2 * images }).filter(
    ({ residence }) => residence === 'always' || (options.reference && residence === 'reference'),
  );
  const plannedBytes = planned.reduce((sum, { peakBytes }) => sum + peakBytes, 0);
  const grownBytes = (await residentMemory('VmHWM')) - residentBytes;
  const sizes = [grownBytes, plannedBytes].map((bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`);
  print(`runs: grown, planned  ${sizes.join(', ')}: ${(grownBytes / plannedBytes).toFixed(2)}`);
  await pipeline.dispose();
}
