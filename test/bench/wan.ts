/**
 * npm run bench -- wan [--model PATH] [--frames 9] [--width 128] [--height 128] [--steps 10] [--threads 1] [--device cpu]
 *   [--saving] [--reuse 0.8,1] [--skip 1]
 *
 * What one video takes, phase by phase: wall seconds, and CPU seconds (user + system of the process). With --saving it is made
 * again with each way of saving steps and with skip-layer guidance, and told what that took and how far its frames are from the plain ones. Without --model it
 * makes the tiny one of hash weights, whose videos are noise.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { GenerationRequest, SkipLayers, VideoRequest } from '../../src/pipelines/pipeline.js';
import { createWanPipeline, type WanPipeline } from '../../src/pipelines/wan/pipeline.js';
import { openBackend } from '../../src/runtime/backend.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { type Lap, median, memoryRow, print, row, stopwatch, sum } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    frames: { type: 'string', default: '9' },
    width: { type: 'string', default: '128' },
    height: { type: 'string', default: '128' },
    steps: { type: 'string', default: '10' },
    threads: { type: 'string', default: '1' },
    device: { type: 'string', default: 'cpu' },
    saving: { type: 'boolean', default: false },
    // The timesteps of hash weights have next to nothing in common: neighbours differ by about 1, those of a trained model by less.
    reuse: { type: 'string', default: '0.8,1' },
    skip: { type: 'string', default: '1' },
  },
});
const { device } = options;
if (device !== 'cpu' && device !== 'webgpu' && device !== 'cuda') {
  throw new Error(`device ${device} must be cpu, webgpu or cuda`);
}
const INTERVAL = { guidanceInterval: { start: 0.2, end: 0.8 } };
/** A row of the table each, after the plain run. */
const ways: readonly (readonly [string, Partial<VideoRequest>])[] = [
  ['guidance 0.2 to 0.8', INTERVAL],
  ...options.reuse.split(',').map((value) => [`reuse ${value}`, { reuseThreshold: Number(value) }] as const),
  ['skip layers', { skipLayers: skipping(0) }],
  ['skip layers, scale 2', { skipLayers: skipping(2) }],
];

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const path = options.model ?? (await writeSyntheticWan(join(folder, 'wan'), 'wan-tiny'));
  const threads = Number(options.threads);
  const model = options.model ?? 'wan-tiny, hash weights';
  print(
    `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${device}, ${threads || 'all'} threads; ${model}`,
  );
  const load = stopwatch();
  const pipeline = await createWanPipeline({ path, backend: await openBackend({ provider: device, threads }) });
  row('load', load());
  await memoryRow();
  const plain = await make(pipeline, {});
  row('text', sum(plain.encode));
  row(`median of ${plain.denoise.length} steps`, median(plain.denoise));
  row('VAE, a latent frame', median(plain.decode));
  await memoryRow();
  if (options.saving) await compare(pipeline, plain);
  await pipeline.dispose();
} finally {
  await rm(folder, { recursive: true });
}

function skipping(scale: number): SkipLayers {
  return { layers: options.skip.split(',').map(Number), start: 0, end: 1, scale };
}

interface Run {
  readonly encode: readonly Lap[];
  readonly denoise: readonly Lap[];
  readonly decode: readonly Lap[];
  readonly forwards: number;
  readonly frames: Buffer;
}

async function make(pipeline: WanPipeline, saving: Partial<VideoRequest>): Promise<Run> {
  const request: GenerationRequest = {
    prompt: 'a red kite over a field',
    negativePrompt: 'blurry',
    width: Number(options.width),
    height: Number(options.height),
    steps: Number(options.steps),
    guidanceScale: 5,
    scheduler: 'flow_unipc',
    seeds: [1],
    video: { frames: Number(options.frames), shift: 5, ...saving },
  };
  const laps = { encode: [] as Lap[], denoise: [] as Lap[], decode: [] as Lap[] };
  const frames: Uint8Array[] = [];
  let forwards = 0;
  const lap = stopwatch();
  for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
    if (event.kind === 'progress') laps[event.phase].push(lap());
    if (event.kind === 'frames') frames.push(...event.frames);
    if (event.kind === 'done') forwards = event.forwards ?? 0;
  }
  return { ...laps, forwards, frames: Buffer.concat(frames) };
}

// Each way beside a plain run right before it: other work on the machine hits both.
async function compare(pipeline: WanPipeline, plain: Run): Promise<void> {
  print('\n| steps                | forwards | denoising, of plain | frames, off by (of 255) |');
  print('| -------------------- | -------- | ------------------- | ----------------------- |');
  tableRow('plain', plain.forwards, 1, 0);
  // The graphs that only saving needs are loaded with the first request that saves.
  await make(pipeline, { reuseThreshold: 1 });
  for (const [name, saving] of ways) {
    const before = sum((await make(pipeline, {})).denoise).cpu;
    const saved = await make(pipeline, saving);
    tableRow(name, saved.forwards, sum(saved.denoise).cpu / before, meanDistance(saved.frames, plain.frames));
  }
}

function tableRow(name: string, forwards: number, ratio: number, distance: number): void {
  const cells = [
    name.padEnd(20),
    String(forwards).padEnd(8),
    ratio.toFixed(2).padEnd(19),
    distance.toFixed(1).padEnd(23),
  ];
  print(`| ${cells.join(' | ')} |`);
}

function meanDistance(a: Buffer, b: Buffer): number {
  return a.reduce((distance, value, i) => distance + Math.abs(value - (b[i] ?? 0)), 0) / a.length;
}
