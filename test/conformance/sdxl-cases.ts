import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageRequest } from '../../src/pipelines/pipeline.js';
import type { SdxlPipeline } from '../../src/pipelines/sdxl/index.js';
import { rgbFromImage } from '../../src/pipelines/sdxl/rgb.js';
import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';
import { schedulerNames } from '../../src/schedulers/index.js';
import { readClipTokenizer } from '../../src/tokenizer/clip.js';
import { type Expected, hashInput } from './golden-folder.js';
import { type Case, type CaseResult, type Comparison, judge, skipped } from './report.js';
import { type ScheduleCase, scheduleCase } from './schedule-cases.js';

interface UNetCases {
  readonly latents: unknown[];
  readonly embeds: unknown[];
  readonly pooled: unknown[];
  readonly time_ids: number[][];
  readonly timesteps: number[];
  readonly outputs: string[];
}

export interface SdxlCases {
  readonly prompts?: readonly { text: string; ids: number[]; ids_2: number[]; embeds: string; pooled: string }[];
  readonly unet?: UNetCases;
  readonly vae?: { decode_in: unknown[]; decode: string };
  readonly txt2img?: readonly {
    prompt: string;
    negative?: string;
    steps: number;
    guidance: number;
    scheduler: string;
    w: number;
    h: number;
    key: string;
    seeds: number[];
  }[];
  readonly img2img?: readonly { key: string }[];
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
          later('vae.enc', 'the VAE encoder is not served yet'),
        ]),
    ...txt2img.map((entry) => ({ name: entry.key, run: () => txt2imgCase(entry, pipeline, expected) })),
    ...img2img.map(({ key }) => later(key, 'image to image is not served yet')),
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
  const { embeds, pooled } = await pipeline.encodePrompt(entry.text);
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
  const [, , shape] = cases.latents as [string, string, number[]];
  const actual = await pipeline.predictNoise({
    latents: hashInput(cases.latents),
    height: shape[2] ?? 0,
    width: shape[3] ?? 0,
    timestep,
    context: hashInput(cases.embeds),
    pooled: hashInput(cases.pooled),
    timeIds: cases.time_ids,
  });
  return judge(key, [{ what: 'noise', actual, expected: expected.get(key), tolerance: 'network' }]);
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
  const actual = await pipeline.decode(
    first.map((value) => value * config.scaling_factor),
    size,
  );
  return judge(cases.decode, [{ what: 'image', actual, expected: want, tolerance: 'network' }]);
}

async function txt2imgCase(
  entry: NonNullable<SdxlCases['txt2img']>[number],
  pipeline: SdxlPipeline,
  expected: Expected,
): Promise<CaseResult> {
  const { key, seeds, scheduler } = entry;
  if (!schedulerNames.includes(scheduler)) return skipped(key, `the scheduler ${scheduler} is not served yet`);
  const request: ImageRequest = {
    prompt: entry.prompt,
    negativePrompt: entry.negative,
    width: entry.w,
    height: entry.h,
    steps: entry.steps,
    guidanceScale: entry.guidance,
    scheduler,
    seeds,
  };
  const { signal } = new AbortController();
  const comparisons: Comparison[] = [];
  const want = {
    noise: expected.get(`${key}.noise`),
    latents: expected.get(`${key}.latents`),
    image: expected.get(`${key}.image`),
  };
  const item = (values: Float32Array | Uint8Array, k: number) =>
    values.subarray((k * values.length) / seeds.length, ((k + 1) * values.length) / seeds.length);
  for (const [k, seed] of seeds.entries()) {
    const noise = item(want.noise, k);
    const drawn = new TorchCpuGenerator(seed).randn(noise.length);
    comparisons.push({ what: `noise ${k}`, actual: drawn, expected: noise, tolerance: 'random' });
    const loop = pipeline.denoise(request, k, signal);
    let turn = await loop.next();
    while (!turn.done) turn = await loop.next();
    comparisons.push({ what: `latents ${k}`, actual: turn.value, expected: item(want.latents, k), tolerance: 'loop' });
    const rgb = rgbFromImage(await pipeline.decode(turn.value, request), request);
    comparisons.push({ what: `picture ${k}`, actual: rgb, expected: item(want.image, k), tolerance: 'picture' });
  }
  return judge(key, comparisons);
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
