import { findFfmpeg } from '../../src/media/ffmpeg.js';
import { planarFrames } from '../../src/pipelines/common/frame-form.js';
import { rgbFromImage } from '../../src/pipelines/common/rgb-image.js';
import { RunningJobs } from '../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest, KnownImages, RequestControlVideo } from '../../src/pipelines/pipeline.js';
import { encodeConditions } from '../../src/pipelines/wan/conditioning/conditions.js';
import { createVaceBlankCache } from '../../src/pipelines/wan/conditioning/vace-control.js';
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
  /** True: it is to look like `ref`, too. */
  readonly look?: boolean;
  /** Name of the bytes of the file that it follows. Omitted: none. */
  readonly control?: string;
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
    video: {
      frames: entry.frames,
      shift: entry.shift,
      known: knownPictures(entry, expected, networks),
      control: await controlVideo(entry, expected),
    },
  };
  const pipeline = new WanPipeline(networks);
  const running = new RunningJobs([{ request, signal: new AbortController().signal }]);
  const texts = await resultOf(encodePrompts(0, request, running, networks.prompts));
  const denoised = await resultOf(pipeline.denoise(0, request, texts ?? [], running));
  if (denoised === undefined) throw new Error('the job ended by itself');
  const frames: Uint8Array[] = [];
  const size = { frames: entry.frames, width: entry.w, height: entry.h };
  for await (const { frames: chunk } of networks.autoencoder.decodeChunks(
    planarFrames,
    pipeline.ownLatents(denoised, size),
    size,
  ))
    frames.push(...chunk.map((frame) => rgbFromImage(frame, size)));
  const noise = expected.get(`${key}.noise`);
  const condition = expected.find(`${key}.condition`);
  return judge(key, [
    ...(condition === undefined
      ? []
      : [
          {
            what: 'condition',
            actual: await conditionOf(request, networks),
            expected: condition,
            tolerance: 'network',
          } as const,
        ]),
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

/** What the transformer takes beside latents and text. */
async function conditionOf(request: GenerationRequest, networks: WanNetworks): Promise<Float32Array> {
  const running = new RunningJobs([{ request, signal: new AbortController().signal }]);
  const blanks = createVaceBlankCache();
  const { condition } = (await resultOf(encodeConditions(0, running, networks, blanks, request))) ?? {};
  if (condition === undefined || condition.kind === 'clean') throw new Error('the model takes no more than latents');
  return condition.kind === 'vace' ? condition.control : condition.channels;
}

async function controlVideo(
  { control, conditioning_scale: scale }: WanVideoCase,
  expected: Expected,
): Promise<RequestControlVideo | undefined> {
  if (control === undefined) return undefined;
  const ffmpeg = await findFfmpeg(undefined);
  if (!ffmpeg.found) throw new Error(`a control video needs ffmpeg: ${ffmpeg.fix}`);
  const file = Uint8Array.from(expected.get(control));
  return { file, ffmpeg: ffmpeg.path, fps: 16, frames: 0, scale };
}

function knownPictures(
  { mode = 'none', look = false, conditioning_scale: strength = 1 }: WanVideoCase,
  expected: Expected,
  { info }: WanNetworks,
): KnownImages | undefined {
  if (mode === 'none') return undefined;
  const picture = (name: string) => Uint8Array.from(expected.get(name));
  return {
    method: info.frames?.method ?? 'latent_hold',
    ...((mode === 'start' || mode === 'both') && { start: picture('first') }),
    ...((mode === 'end' || mode === 'both') && { end: picture('last') }),
    ...((mode === 'reference' || look) && { look: picture('ref') }),
    strength,
  };
}
