import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { rgbFromImage } from '../../src/pipelines/common/rgb-image.js';
import { RunningJobs } from '../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import type { SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { encodePrompts } from '../../src/pipelines/sdxl/prompt/encode-prompts.js';
import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';
import { schedulerNames } from '../../src/schedulers/beta-schedulers.js';
import { readClipTokenizer } from '../../src/tokenizer/clip.js';
import { resultOf } from '../support/result-of.js';
import { type Expected, hashInput } from './golden-folder.js';
import { type Case, type CaseResult, type Comparison, judge, skipped } from './report.js';
import { type ScheduleCase, scheduleCase } from './schedule-cases.js';

export interface UNetCases {
  readonly latents: unknown[];
  readonly embeds: unknown[];
  readonly pooled: unknown[];
  readonly time_ids: number[][];
  readonly timesteps: number[];
  readonly outputs: string[];
}

export interface TextToImageCase {
  readonly prompt: string;
  readonly negative?: string;
  readonly steps: number;
  readonly guidance: number;
  readonly scheduler: string;
  readonly w: number;
  readonly h: number;
  /** Its expected outputs are called `<key>.noise` and so on. */
  readonly key: string;
  readonly seeds: readonly number[];
}

export interface SdxlCases {
  readonly prompts?: readonly { text: string; ids: number[]; ids_2: number[]; embeds: string; pooled: string }[];
  readonly unet?: UNetCases;
  readonly vae?: { decode_in: unknown[]; decode: string; image?: unknown[]; mean?: string; logvar?: string };
  readonly txt2img?: readonly TextToImageCase[];
  readonly img2img?: readonly {
    prompt: string;
    negative?: string;
    steps: number;
    guidance: number;
    strength: number;
    scheduler: string;
    key: string;
    seed: number;
    init_image: unknown[];
  }[];
  readonly schedulers?: readonly ScheduleCase[];
  readonly randn?: { seeds: number[] };
}

const KNOWN = new Set(['prompts', 'unet', 'vae', 'txt2img', 'img2img', 'schedulers', 'randn']);

/** Every case of a `cases.json` beside an SDXL model's configurations. */
export function sdxlCases(
  cases: SdxlCases,
  expected: Expected,
  model: string,
  pipeline: SdxlPipeline,
): readonly Case[] {
  const later = (name: string, why: string): Case => ({ name, run: () => skipped(name, why) });
  const { prompts = [], unet, vae, txt2img = [], img2img = [], schedulers = [], randn } = cases;
  return [
    ...prompts.map((entry, i) => ({
      name: `prompts[${i}]`,
      run: () => promptCase(`prompts[${i}]`, entry, model, pipeline, expected),
    })),
    ...(unet?.timesteps ?? []).map((timestep, i) => {
      const key = unet?.outputs[i] ?? '';
      return { name: key, run: () => unetCase(key, timestep, unet as UNetCases, pipeline, expected) };
    }),
    ...(vae === undefined
      ? []
      : [
          { name: vae.decode, run: () => vaeCase(vae, model, pipeline, expected) },
          { name: 'vae.enc', run: () => vaeEncoderCase(vae, pipeline, expected) },
        ]),
    ...txt2img.map((entry) => ({ name: entry.key, run: () => txt2imgCase(entry, pipeline, expected) })),
    ...img2img.map((entry) => ({ name: entry.key, run: () => img2imgCase(entry, pipeline, expected) })),
    ...schedulers.map((entry) => ({ name: entry.key, run: () => scheduleCase(entry, expected) })),
    ...(randn?.seeds ?? []).map((seed) => ({ name: `randn.cpu.${seed}`, run: () => randnCase(seed, expected) })),
    ...Object.keys(cases)
      .filter((kind) => !KNOWN.has(kind))
      .map((kind) => later(kind, 'a kind of case not known yet')),
  ];
}

async function promptCase(
  name: string,
  entry: { text: string; ids: number[]; ids_2: number[]; embeds: string; pooled: string },
  model: string,
  pipeline: SdxlPipeline,
  expected: Expected,
): Promise<CaseResult> {
  const first = await readClipTokenizer(join(model, 'tokenizer'));
  const second = await readClipTokenizer(join(model, 'tokenizer_2'));
  const { embeds, pooled } = await pipeline.networks.prompts.encode(entry.text, 'diffusers');
  return judge(name, [
    { what: 'ids', actual: first.encode(entry.text).ids, expected: entry.ids, tolerance: 'exact' },
    { what: 'ids_2', actual: second.encode(entry.text).ids, expected: entry.ids_2, tolerance: 'exact' },
    { what: 'embeds', actual: embeds, expected: expected.get(entry.embeds), tolerance: 'network' },
    { what: 'pooled', actual: pooled, expected: expected.get(entry.pooled), tolerance: 'network' },
  ]);
}

async function unetCase(
  key: string,
  timestep: number,
  cases: UNetCases,
  pipeline: SdxlPipeline,
  expected: Expected,
): Promise<CaseResult> {
  const actual = await predictedNoise(cases, timestep, pipeline);
  return judge(key, [{ what: 'noise', actual, expected: expected.get(key), tolerance: 'network' }]);
}

/** What the UNet makes of the inputs of its cases. */
export async function predictedNoise(
  cases: UNetCases,
  timestep: number,
  pipeline: SdxlPipeline,
): Promise<Float32Array> {
  const [, , shape] = cases.latents as [string, string, number[]];
  const { noise } = await pipeline.networks.denoiser.predictNoise({
    latents: hashInput(cases.latents),
    height: shape[2] ?? 0,
    width: shape[3] ?? 0,
    timestep,
    context: hashInput(cases.embeds),
    pooled: hashInput(cases.pooled),
    timeIds: cases.time_ids,
  });
  return noise;
}

async function vaeCase(
  cases: { decode_in: unknown[]; decode: string },
  model: string,
  pipeline: SdxlPipeline,
  expected: Expected,
): Promise<CaseResult> {
  const [, , shape] = cases.decode_in as [string, string, number[]];
  const [, channels = 0, height = 0, width = 0] = shape;
  // "first item": one latent of the batch. The case gives what enters the network; decode() divides by the scaling factor.
  const first = hashInput(cases.decode_in).subarray(0, channels * height * width);
  const config = JSON.parse(await readFile(join(model, 'vae', 'config.json'), 'utf8')) as { scaling_factor: number };
  const want = expected.get(cases.decode);
  const side = Math.sqrt(want.length / 3 / (height * width));
  const size = { width: width * side, height: height * side };
  const actual = await pipeline.networks.autoencoder.decode(
    first.map((value) => value * config.scaling_factor),
    size,
  );
  return judge(cases.decode, [{ what: 'image', actual, expected: want, tolerance: 'network' }]);
}

export async function txt2imgCase(
  entry: TextToImageCase,
  pipeline: SdxlPipeline,
  expected: Expected,
  name = entry.key,
): Promise<CaseResult> {
  const { seeds, scheduler } = entry;
  const prefix = entry.key === '' ? '' : `${entry.key}.`;
  if (!schedulerNames.includes(scheduler)) return skipped(name, `the scheduler ${scheduler} is not served yet`);
  const request: GenerationRequest = {
    prompt: entry.prompt,
    negativePrompt: entry.negative,
    width: entry.w,
    height: entry.h,
    steps: entry.steps,
    guidanceScale: entry.guidance,
    scheduler,
    seeds,
  };
  const comparisons: Comparison[] = [];
  const want = {
    noise: expected.get(`${prefix}noise`),
    latents: expected.get(`${prefix}latents`),
    image: expected.get(`${prefix}image`),
  };
  const item = (values: Float32Array | Uint8Array, k: number) =>
    values.subarray((k * values.length) / seeds.length, ((k + 1) * values.length) / seeds.length);
  const pictures = await denoised(pipeline, request);
  for (const [k, seed] of seeds.entries()) {
    const noise = item(want.noise, k);
    const drawn = new TorchCpuGenerator(seed).randn(noise.length);
    comparisons.push({ what: `noise ${k}`, actual: drawn, expected: noise, tolerance: 'random' });
    const latents = pictures[k] ?? new Float32Array();
    comparisons.push({ what: `latents ${k}`, actual: latents, expected: item(want.latents, k), tolerance: 'loop' });
    const rgb = rgbFromImage(await pipeline.networks.autoencoder.decode(latents, request), request);
    comparisons.push({ what: `picture ${k}`, actual: rgb, expected: item(want.image, k), tolerance: 'picture' });
  }
  return judge(name, comparisons);
}

async function img2imgCase(
  entry: NonNullable<SdxlCases['img2img']>[number],
  pipeline: SdxlPipeline,
  expected: Expected,
): Promise<CaseResult> {
  const { key, seed, strength } = entry;
  const [, , shape] = entry.init_image as [string, string, number[]];
  const [, , height = 0, width = 0] = shape;
  const request: GenerationRequest = {
    prompt: entry.prompt,
    negativePrompt: entry.negative,
    width,
    height,
    steps: entry.steps,
    guidanceScale: entry.guidance,
    scheduler: entry.scheduler,
    seeds: [seed],
    // The case's picture is in numbers that no uint8 holds: it goes to the encoder directly.
    init: { rgb: new Uint8Array(), strength },
  };
  const want = { init: expected.get(`${key}.init`), noise: expected.get(`${key}.noise`) };
  const initLatents = await pipeline.networks.autoencoder.encodeLatents(caseImage(entry.init_image), request);
  const drawn = new TorchCpuGenerator(seed).randn(want.noise.length);
  const [latents = new Float32Array()] = await denoised(pipeline, request, initLatents);
  const rgb = rgbFromImage(await pipeline.networks.autoencoder.decode(latents, request), request);
  return judge(key, [
    { what: 'init', actual: initLatents, expected: want.init, tolerance: 'network' },
    { what: 'noise', actual: drawn, expected: want.noise, tolerance: 'random' },
    { what: 'latents', actual: latents, expected: expected.get(`${key}.latents`), tolerance: 'loop' },
    { what: 'picture', actual: rgb, expected: expected.get(`${key}.image`), tolerance: 'picture' },
  ]);
}

/** Latents of all pictures of a request at the end of the loop. */
async function denoised(
  pipeline: SdxlPipeline,
  request: GenerationRequest,
  initLatents?: Float32Array,
): Promise<readonly Float32Array[]> {
  const { prompts, config } = pipeline.networks;
  const running = new RunningJobs([{ request, signal: new AbortController().signal }]);
  const conditioning = await resultOf(encodePrompts(0, request, running, prompts, config.forceZerosForEmptyPrompt));
  if (conditioning === undefined) throw new Error('the case was cancelled');
  const pictures = request.seeds.map((_, k) => pipeline.startImage(0, request, k, conditioning, { initLatents }));
  for await (const _ of pipeline.denoise(pictures, running));
  return pictures.map(({ latents }) => latents);
}

/** `["hash", name, shape, "clamp -1..1"]` */
function caseImage(spec: readonly unknown[]): Float32Array {
  return hashInput(spec).map((value) => Math.min(Math.max(value, -1), 1));
}

async function vaeEncoderCase(
  cases: NonNullable<SdxlCases['vae']>,
  pipeline: SdxlPipeline,
  expected: Expected,
): Promise<CaseResult> {
  if (cases.image === undefined || cases.mean === undefined || cases.logvar === undefined) {
    return skipped('vae.enc', 'the case has no image to encode');
  }
  const [, , shape] = cases.image as [string, string, number[]];
  const [, , height = 0, width = 0] = shape;
  const { mean, logVariance } = await pipeline.networks.autoencoder.encode(caseImage(cases.image), { width, height });
  return judge('vae.enc', [
    { what: 'mean', actual: mean, expected: expected.get(cases.mean), tolerance: 'network' },
    { what: 'logvar', actual: logVariance, expected: expected.get(cases.logvar), tolerance: 'network' },
  ]);
}

function randnCase(seed: number, expected: Expected): CaseResult {
  return judge(
    `randn.cpu.${seed}`,
    ['randn', 'randn_small', 'randn_odd'].flatMap((kind) => {
      const want = expected.find(`${kind}.cpu.${seed}`);
      if (want === undefined) return [];
      const actual = new TorchCpuGenerator(seed).randn(want.length);
      return [{ what: kind, actual, expected: want, tolerance: 'random' as const }];
    }),
  );
}
