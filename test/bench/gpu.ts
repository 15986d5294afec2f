/**
 * npm run bench -- gpu [--device auto] [--precision auto] [--minutes 8] [--parts providers,probes,conformance,sdxl,wan] [--plain]
 *   [--sdxl PATH] [--wan PATH] [--out gpu-bench.json] [--quick]
 *
 * One run of everything that is to be known about a card: providers that open, probes of ops in each type, conformance in float32
 * with TF32 off and on and in half precision, SDXL and WAN of the released sizes, and the device's memory after each part beside what
 * was computed for it. Prints a table, and writes the same as JSON after each row, so that a crash leaves what was seen. Once the
 * minutes are over, the rest is left out. Weights are noise, unless PATH is a model: images mean
 * nothing.
 * `--plain` fuses no ops, `--quick` runs everything at tiny sizes on the CPU.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { devices, type Provider, precisions } from '../../src/device.js';
import { precisionNames } from '../../src/graph/dialect.js';
import { memoryAt, type RunSize, sumMemory } from '../../src/pipelines/model-memory.js';
import type { GenerationRequest, Phase, Pipeline } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { createWanPipeline } from '../../src/pipelines/wan/pipeline.js';
import { type Backend, openBackend } from '../../src/runtime/backend.js';
import { measureCard } from '../../src/runtime/device-memory.js';
import { areSumsRight, isFusedAttentionRight } from '../../src/runtime/op-probes.js';
import { computeTypes } from '../../src/runtime/precision.js';
import { chooseDevice, probeProvider } from '../../src/runtime/probe.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { fillWithNoise } from './noise-weights.js';
import { quantile } from './served.js';
import { print } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'auto' },
    precision: { type: 'string', default: 'auto' },
    parts: { type: 'string', default: 'providers,probes,conformance,sdxl,wan' },
    sdxl: { type: 'string' },
    wan: { type: 'string' },
    plain: { type: 'boolean', default: false },
    minutes: { type: 'string', default: '8' },
    out: { type: 'string', default: 'gpu-bench.json' },
    quick: { type: 'boolean', default: false },
  },
});
const wanted = devices.find((name) => name === options.device);
if (wanted === undefined) throw new Error(`device ${options.device} must be one of ${devices.join(', ')}`);
const precision = precisions.find((name) => name === options.precision);
if (precision === undefined) throw new Error(`precision ${options.precision} must be one of ${precisions.join(', ')}`);
const minutes = Number(options.minutes);
if (!(minutes > 0)) throw new Error(`minutes ${options.minutes} must be a number above 0`);

/** Sizes of a run: the released models', or tiny ones. */
const SIZES = options.quick
  ? ({
      image: 64,
      steps: [2, 3],
      video: { width: 32, height: 32, frames: 9 },
      sdxl: 'sdxl-tiny',
      wan: 'wan-tiny',
    } as const)
  : ({
      image: 1024,
      steps: [15, 25],
      video: { width: 832, height: 480, frames: 81 },
      sdxl: 'sdxl-base',
      wan: 'wan-1.3b',
    } as const);
const BATCHES = [1, 3, 6];
const VIDEO_PROMPTS = ['a red kite over a field', 'a blue kite over a beach'] as const;
const GOLDENS = fileURLToPath(new URL('../../../test/fixtures/goldens/', import.meta.url));
/** A part of the conformance that is quick and has every kind of network but the largest. */
const QUICK_CASES = '^(clip|unet|vae|dit|umt5)';

interface Row {
  readonly part: string;
  readonly what: string;
  readonly result: string;
  /** Memory in use on the card afterwards, by all processes. */
  readonly usedBytes?: number | undefined;
  /** What was computed for the open networks, without what the device needs beside them. */
  readonly computedBytes?: number | undefined;
}

const rows: Row[] = [];
const began = performance.now();
const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
const provider: Provider = options.quick ? 'cpu' : (await chooseDevice(wanted)).device;
try {
  print(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${provider}; ${await cardName()}\n`);
  const parts = options.parts.split(',');
  if (parts.includes('providers')) await part('providers', measureProviders);
  if (parts.includes('probes')) await part('op probes', measureProbes);
  if (parts.includes('conformance')) await part('conformance', measureConformance);
  if (parts.includes('sdxl')) await part('SDXL', measureSdxl);
  if (parts.includes('wan')) await part('WAN', measureWan);
} finally {
  await rm(folder, { recursive: true });
}
print(`\n${rows.length} rows in ${options.out}, ${seconds(began)}`);
process.exitCode = rows.some(({ result }) => result.startsWith('failed')) ? 1 : 0;

/** Adds a row to the report. */
type Report = (what: string, result: string, computedBytes?: number) => Promise<void>;

/** Runs one part. What it throws is a row; the other parts go on. Once the time is over, parts end at their next row. */
async function part(name: string, measure: (report: Report) => Promise<void>): Promise<void> {
  const record: Report = async (what, result, computedBytes) => {
    const card = await measureCard();
    const usedBytes = card && card.totalBytes - card.freeBytes;
    const row = { part: name, what, result, usedBytes, computedBytes };
    rows.push(row);
    print(lineOf(row));
    await writeFile(options.out, `${JSON.stringify({ provider, quick: options.quick, rows }, null, 2)}\n`);
  };
  const isOver = () => performance.now() - began > minutes * 60_000;
  const over = `left out: ${minutes} minutes are over`;
  const report: Report = async (...row) => {
    await record(...row);
    if (isOver()) throw new Error(over);
  };
  if (isOver()) return record('', over);
  try {
    await measure(report);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    await record('', message === over ? over : `failed: ${message}`);
  }
}

function lineOf({ part, what, result, usedBytes, computedBytes }: Row): string {
  const memory = [
    usedBytes === undefined ? '' : `${gb(usedBytes)} in use`,
    computedBytes === undefined ? '' : `${gb(computedBytes)} computed`,
  ];
  return `${part.padEnd(12)} ${what.padEnd(36)} ${result.padEnd(34)} ${memory.join(' ').trim()}`.trimEnd();
}

async function measureProviders(report: Report): Promise<void> {
  for (const name of ['cpu', 'webgpu', 'cuda', 'tensorrt'] as const) {
    const { opens, detail } = await probeProvider(name);
    await report(name, opens ? detail : `does not open: ${detail}`);
  }
}

async function measureProbes(report: Report): Promise<void> {
  const { runtime } = await openBackend({ provider, precision: 'fp32' });
  const device = { provider, deviceId: 0, threads: 0, runtime };
  for (const type of computeTypes(provider, 'fp16')) {
    const [attention, sums] = [await isFusedAttentionRight(device, type), await areSumsRight(device, type)];
    await report(precisionNames[type], `attention ${attention ? 'right' : 'wrong'}, sums ${sums ? 'right' : 'wrong'}`);
  }
}

async function measureConformance(report: Report): Promise<void> {
  const program = fileURLToPath(new URL('../conformance/main.js', import.meta.url));
  const runs: ['fp32' | 'fp16', boolean][] = [['fp32', false]];
  if (provider === 'cuda') runs.push(['fp32', true]);
  if (computeTypes(provider, 'fp16').includes('f16')) runs.push(['fp16', false]);
  for (const [precision, tf32] of runs) {
    for (const name of ['sdxl-tiny', 'wan-tiny']) {
      const args = [program, join(GOLDENS, name), '--device', provider, '--precision', precision];
      if (options.quick) args.push('--only', QUICK_CASES);
      if (tf32) args.push('--tf32');
      const env = { ...process.env, ...(!tf32 && { NVIDIA_TF32_OVERRIDE: '0' }) };
      // A failed case is a result: its exit status is no fault of the bench.
      const output = await promisify(execFile)(process.execPath, args, { env }).catch(
        (error: { stdout?: string }) => error,
      );
      const lines = (output.stdout ?? '').trim().split('\n');
      const failed = lines.filter((line) => line.startsWith('FAIL')).map((line) => line.split(/ +/)[1]);
      const result = [lines.at(-1) || 'failed: no output', ...failed.slice(0, 4)].join(' ');
      await report(`${name}, ${precision}, TF32 ${tf32 ? 'on' : 'off'}`, result);
    }
  }
}

async function measureSdxl(report: Report): Promise<void> {
  const { image: side } = SIZES;
  const path = options.sdxl ?? (await writeSyntheticSdxl(join(folder, 'sdxl'), SIZES.sdxl, 'F16', true));
  if (options.sdxl === undefined) await fillWithNoise(path);
  let start = performance.now();
  const opened = await backend();
  await report('op probes and fused ops', `${seconds(start)}, ${fusionsOf(opened)}`);
  start = performance.now();
  const pipeline = await createSdxlPipeline({ path, backend: opened, batchPixels: 6 * side * side });
  await report('first load', seconds(start));
  await report('computes in', precisionsOf(pipeline));
  try {
    for (const steps of SIZES.steps) {
      for (const images of BATCHES) {
        const request = requestOf({
          width: side,
          height: side,
          steps,
          seeds: Array.from({ length: images }, (_, i) => i),
        });
        start = performance.now();
        const spent = await phasesOf(pipeline, request);
        const size = { width: side, height: side, frames: 1, rows: 2 * images };
        const result = `${seconds(start)}, ${describe(spent)}`;
        await report(`${side}x${side}, ${steps} steps, batch ${images}`, result, computed(pipeline, size));
      }
    }
  } finally {
    await pipeline.dispose();
  }
  await report('released', 'all sessions');
}

async function measureWan(report: Report): Promise<void> {
  const { video } = SIZES;
  const path = options.wan ?? (await writeSyntheticWan(join(folder, 'wan'), SIZES.wan, 'BF16', true));
  if (options.wan === undefined) await fillWithNoise(path);
  let start = performance.now();
  const opened = await backend();
  start = performance.now();
  const pipeline = await createWanPipeline({ path, backend: opened });
  await report('first load, without UMT5', seconds(start));
  await report('computes in', precisionsOf(pipeline));
  const size = { ...video, rows: 2 };
  const name = `${video.width}x${video.height}x${video.frames}`;
  try {
    // The second time shapes are known to the device.
    for (const [i, what] of ['first', 'second'].entries()) {
      const steps = 2;
      const prompt = VIDEO_PROMPTS[i] ?? '';
      const { encode, denoise, decode } = await phasesOf(pipeline, {
        ...requestOf({ ...video, steps, seeds: [1] }),
        prompt,
        scheduler: 'flow_unipc',
        video: { frames: video.frames, shift: 5 },
      });
      await report(`UMT5, load and prompts, ${what}`, `${total(encode).toFixed(2)} s`, computed(pipeline, size));
      await report(`${name}, step, ${what}`, `${denoise.map((step) => step.toFixed(2)).join(', ')} s`);
      await report(`${name}, VAE decode, ${what}`, `${total(decode).toFixed(2)} s`);
    }
    await report(`${name}, cancel in a step`, `ends ${await timeToCancel(pipeline, video)} after it`);
    const frames = Array.from({ length: video.frames }, () => new Float32Array(3 * video.width * video.height));
    start = performance.now();
    await pipeline.networks.autoencoder.encode(frames, video);
    await report(`${name}, VAE encode`, seconds(start), computed(pipeline, size, true));
  } finally {
    await pipeline.dispose();
  }
}

function backend(): Promise<Backend> {
  return openBackend({ provider, precision, threads: 0, fuses: !options.plain });
}

function requestOf(
  request: Pick<GenerationRequest, 'width' | 'height' | 'steps' | 'seeds'>,
): Omit<GenerationRequest, 'video'> {
  const texts = { prompt: 'a lighthouse on a cliff at dawn', negativePrompt: 'blurry' };
  const { width, height, steps, seeds } = request;
  return { ...texts, width, height, steps, seeds, guidanceScale: 6, scheduler: 'euler' };
}

/** Cancels a video in its second step. */
async function timeToCancel(
  pipeline: Pipeline,
  { frames, ...size }: { readonly width: number; readonly height: number; readonly frames: number },
): Promise<string> {
  const controller = new AbortController();
  let at = Number.NaN;
  const cancel = () => {
    at = performance.now();
    controller.abort(new Error('cancelled'));
  };
  const request = { ...requestOf({ ...size, steps: 4, seeds: [1] }), prompt: VIDEO_PROMPTS[1] };
  const video = { ...request, scheduler: 'flow_unipc' as const, video: { frames, shift: 5 } };
  try {
    for await (const event of pipeline.generate([{ request: video, signal: controller.signal }])) {
      if (event.kind === 'progress' && event.phase === 'denoise' && !controller.signal.aborted)
        setTimeout(cancel, options.quick ? 1 : 300);
    }
  } catch (error) {
    if (!controller.signal.aborted) throw error;
  }
  return `${(performance.now() - at).toFixed(0)} ms`;
}

type Phases = Readonly<Record<Phase, readonly number[]>>;

/** Seconds of a job's stages, by phase. */
async function phasesOf(pipeline: Pipeline, request: GenerationRequest): Promise<Phases> {
  const spent: Record<Phase, number[]> = { encode: [], denoise: [], decode: [] };
  let mark = performance.now();
  for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
    if (event.kind !== 'progress') continue;
    spent[event.phase].push((performance.now() - mark) / 1000);
    mark = performance.now();
  }
  return spent;
}

/** Ops that graphs spell as one, by type. */
function fusionsOf({ dialectsOf }: Backend): string {
  return dialectsOf(['f16', 'bf16'])
    .map(({ compute, fusions = [] }) => `${precisionNames[compute]}: ${fusions.join(' ') || 'none'}`)
    .join(', ');
}

/** Networks by what they compute in; a wider one with its reason. */
function precisionsOf({ info }: Pipeline): string {
  return (info.precisions ?? [])
    .map(({ network, precision, reason }) => `${network} ${precision}${reason === undefined ? '' : ` (${reason})`}`)
    .join(', ');
}

/** The first step of a size is longer: kernels are chosen for it. */
function describe({ denoise, decode }: Phases): string {
  return `step ${quantile(denoise, 0.5).toFixed(3)} s (first ${denoise[0]?.toFixed(3)}), VAE ${total(decode).toFixed(2)} s`;
}

function total(times: readonly number[]): number {
  return times.reduce((sum, time) => sum + time, 0);
}

/** Bytes of what is open, as `darkroom doctor --plan` counts it. */
function computed(pipeline: Pipeline, size: RunSize, hasReferences = false): number {
  const memory = pipeline.planMemory?.();
  if (memory === undefined) throw new Error('the model has no networks');
  return sumMemory(memoryAt(memory, size), hasReferences ? ['reference'] : []).rest;
}

async function cardName(): Promise<string> {
  const query = ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader'];
  const answer = await promisify(execFile)('nvidia-smi', query).catch(() => undefined);
  return answer?.stdout.split('\n')[0] ?? 'no NVIDIA card';
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(2)} s`;
}

function gb(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
