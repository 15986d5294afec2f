import { rgbFromImage } from '../../src/pipelines/common/rgb-image.js';
import { RunningJobs } from '../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest, KnownImages } from '../../src/pipelines/pipeline.js';
import type { WanNetworks } from '../../src/pipelines/wan/networks.js';
import { WanPipeline } from '../../src/pipelines/wan/pipeline.js';
import { encodePrompts } from '../../src/pipelines/wan/prompt/encode-prompts.js';
import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';
import { resultOf } from '../support/result-of.js';
import type { Expected } from './golden-folder.js';
import { type Case, type CaseResult, judge } from './report.js';

/** A video of one of diffusers' pipelines of WAN, whose own scheduler made it. */
export interface WanVideoCase {
  readonly prompt: string;
  readonly negative: string;
  readonly seed: number;
  readonly steps: number;
  readonly guidance: number;
  readonly frames: number;
  readonly w: number;
  readonly h: number;
  readonly shift: number;
  readonly key: string;
  /** Which of the pictures `first`, `last` and `ref` it was made from. Omitted: none. */
  readonly mode?: 'none' | 'start' | 'end' | 'both' | 'reference';
  /** Of VACE. Omitted: 1. */
  readonly conditioning_scale?: number;
}

export function wanVideoCases(
  videos: readonly WanVideoCase[],
  expected: Expected,
  networks: WanNetworks,
): readonly Case[] {
  return videos.map((entry) => ({ name: entry.key, run: () => videoCase(entry, expected, networks) }));
}

async function videoCase(entry: WanVideoCase, expected: Expected, networks: WanNetworks): Promise<CaseResult> {
  const { key } = entry;
  const request: GenerationRequest = {
    prompt: entry.prompt,
    negativePrompt: entry.negative,
    width: entry.w,
    height: entry.h,
    steps: entry.steps,
    guidanceScale: entry.guidance,
    scheduler: 'flow_unipc_diffusers',
    seeds: [entry.seed],
    video: { frames: entry.frames, shift: entry.shift, known: knownPictures(entry, expected, networks) },
  };
  const pipeline = new WanPipeline(networks);
  const running = new RunningJobs([{ request, signal: new AbortController().signal }]);
  const texts = await resultOf(encodePrompts(0, request, running, networks.prompts));
  const denoised = await resultOf(pipeline.denoise(0, request, texts ?? [], running));
  if (denoised === undefined) throw new Error('the job ended by itself');
  const frames: Uint8Array[] = [];
  const size = { frames: entry.frames, width: entry.w, height: entry.h };
  for await (const chunk of networks.autoencoder.decodeChunks(pipeline.ownLatents(denoised, size), size))
    frames.push(...chunk.map((frame) => rgbFromImage(frame, size)));
  const noise = expected.get(`${key}.noise`);
  return judge(key, [
    {
      what: 'noise',
      actual: new TorchCpuGenerator(entry.seed).randn(noise.length),
      expected: noise,
      tolerance: 'random',
    },
    { what: 'latents', actual: denoised.latents, expected: expected.get(`${key}.latents`), tolerance: 'loop' },
    { what: 'frames', actual: Buffer.concat(frames), expected: expected.get(`${key}.frames`), tolerance: 'picture' },
  ]);
}

function knownPictures(
  { mode = 'none', conditioning_scale: strength = 1 }: WanVideoCase,
  expected: Expected,
  { info }: WanNetworks,
): KnownImages | undefined {
  if (mode === 'none') return undefined;
  const picture = (name: string) => Uint8Array.from(expected.get(name));
  return {
    method: info.frames?.method ?? 'latent_hold',
    ...((mode === 'start' || mode === 'both') && { start: picture('first') }),
    ...((mode === 'end' || mode === 'both') && { end: picture('last') }),
    ...(mode === 'reference' && { look: picture('ref') }),
    strength,
  };
}
