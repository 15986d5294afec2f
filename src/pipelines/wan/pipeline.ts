import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import type { Backend } from '../../runtime/backend.js';
import { createFlowScheduler } from '../../schedulers/flow-schedulers.js';
import type { Scheduler } from '../../schedulers/scheduler.js';
import { firstStep } from '../common/batching.js';
import { isEverGuided } from '../common/guidance.js';
import { PreviewClock, previewFromLatents } from '../common/preview.js';
import { imageFromRgb, rgbFromImage } from '../common/rgb-image.js';
import { RunningJobs } from '../common/running-jobs.js';
import type { LoraSource } from '../lora/read-lora.js';
import type { ClipRequest, GenerationRequest, ModelInfo, Pipeline, PipelineEvent, PipelineJob } from '../pipeline.js';
import { encodeConditions } from './conditioning/conditions.js';
import { HeldLatents } from './conditioning/latent-hold.js';
import { BlankLatents } from './conditioning/vace-blank-cache.js';
import { flowShiftOf } from './flow-shift.js';
import { wanColours } from './latent-colours.js';
import { withoutLeading } from './model/latents.js';
import { type ClipSize, loadWanNetworks, type WanNetworks, type WanOptions } from './networks.js';
import type { EncodedPrompt } from './prompt/prompt-encoder.js';
import { type Texts, Velocity } from './velocity.js';

export async function createWanPipeline(options: WanOptions): Promise<WanPipeline> {
  return new WanPipeline(await loadWanNetworks(options));
}

interface Start {
  readonly latents: Float32Array;
  readonly scheduler: Scheduler;
  readonly held: HeldLatents | undefined;
}

/** A clip's latents at the end of its loop. */
export interface DenoisedClip {
  /** [16, leading + F, h, w] */
  readonly latents: Float32Array;
  /** Latents before the clip's own: of pictures that it was to look like. */
  readonly leading: number;
}

/** Text, or known frames and text, to clips and single frames with WAN 2.1. Jobs run one after the other. */
export class WanPipeline implements Pipeline {
  readonly networks: WanNetworks;
  readonly #blanks = new BlankLatents();

  constructor(networks: WanNetworks) {
    this.networks = networks;
  }

  get backend(): Backend {
    return this.networks.backend;
  }

  get info(): ModelInfo {
    return this.networks.info;
  }

  async *generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined> {
    const running = new RunningJobs(jobs);
    for (const [job, { request }] of jobs.entries()) yield* this.#run(job, request, running);
  }

  /** States of prompt and negative prompt; undefined when the job ended meanwhile. */
  async *condition(
    job: number,
    request: GenerationRequest,
    running: RunningJobs,
  ): AsyncGenerator<PipelineEvent, Texts | undefined, undefined> {
    const { prompts: encoder } = this.networks;
    const { prompt, negativePrompt = '' } = request;
    const texts = isEverGuided(request) ? [negativePrompt, prompt] : [prompt];
    const unseen = new Set(texts.filter((text) => !encoder.isCached(text)));
    const total = unseen.size;
    const encoded: EncodedPrompt[] = [];
    for (const text of texts) {
      yield* running.look();
      if (!running.isAlive(job)) break;
      encoded.push(await encoder.encode(text));
      if (unseen.delete(text)) yield running.advance(job, 'encode', 1, total);
    }
    await encoder.rest();
    const positive = encoded.at(-1);
    if (positive === undefined || encoded.length < texts.length) return undefined;
    const { ids, length } = positive;
    // The end token is none of the caller's.
    const report = { chunks: 1, tokens: length - 1, dropped: length - ids.length, strategy: 'none' } as const;
    yield { job, kind: 'prompt', report };
    return encoded.map(({ states }) => states);
  }

  /**
   * One clip's loop.
   * @param noise unscaled; omitted, drawn from the seed
   * @returns undefined when the job ended meanwhile
   */
  async *denoise(
    job: number,
    request: GenerationRequest,
    texts: Texts,
    running: RunningJobs,
    noise?: Float32Array,
  ): AsyncGenerator<PipelineEvent, DenoisedClip | undefined, undefined> {
    const conditions = yield* encodeConditions(job, running, this.networks, this.#blanks, request);
    if (conditions === undefined) return undefined;
    const { condition, leading } = conditions;
    const own = this.networks.latentSize(clipSize(request));
    const size = { ...own, frames: leading + own.frames };
    const clock = new PreviewClock(request.previewsPerSecond ?? 0);
    const first = firstStep(request);
    const { scheduler, held, latents: initial } = await this.#start(request, size, noise);
    const timesteps = [...scheduler.timesteps];
    const velocity = await Velocity.plan(this.networks, { request, texts, size, timesteps, condition });
    let latents = held?.putBack(initial, scheduler.sigmas[first] ?? 1) ?? initial;
    for (let i = first; i < request.steps; i += 1) {
      yield* running.look();
      if (!running.isAlive(job)) return undefined;
      const { flow, forwards } = await velocity.at(i, latents);
      running.countForwards(job, forwards);
      const isDue = i < request.steps - 1 && clock.isDue(performance.now());
      const clean = isDue ? cleanClip(latents, flow, scheduler.sigmas[i] ?? 0) : undefined;
      latents = scheduler.step(flow, latents, i, noNoise);
      if (held?.holds(i + 1, request.steps)) latents = held.putBack(latents, scheduler.sigmas[i + 1] ?? 0);
      yield running.advance(job, 'denoise', 1, request.steps - first);
      if (clean === undefined) continue;
      // The frame in the middle says more of a clip than its first one.
      yield {
        job,
        kind: 'preview',
        index: 0,
        ...previewFromLatents(clean, size, wanColours, leading + (own.frames >> 1)),
      };
    }
    return { latents, leading };
  }

  /** The clip's own latents, [16, F, h, w]. */
  clipOf({ latents, leading }: DenoisedClip, size: ClipSize): Float32Array {
    const { frames } = this.networks.latentSize(size);
    return withoutLeading(latents, leading, leading + frames, this.networks.config.vae.z_dim);
  }

  get variantBytes(): number {
    return this.networks.variantBytes;
  }

  /** The same model with LoRAs folded in; it goes before its base does. */
  async withLoras(loras: readonly LoraSource[]): Promise<WanPipeline> {
    return new WanPipeline(await this.networks.withLoras(loras));
  }

  dispose(): Promise<void> {
    return this.networks.release();
  }

  async *#run(
    job: number,
    request: GenerationRequest,
    running: RunningJobs,
  ): AsyncGenerator<PipelineEvent, void, undefined> {
    const texts = yield* this.condition(job, request, running);
    if (texts === undefined) return;
    const denoised = yield* this.denoise(job, request, texts, running);
    if (denoised === undefined) return;
    const size = clipSize(request);
    const latents = this.clipOf(denoised, size);
    const total = this.networks.latentSize(size).frames;
    const [seed = 0] = request.seeds;
    // Leaving the loop early gives back what the decoder holds.
    for await (const frames of this.networks.decodeChunks(latents, size)) {
      yield* running.look();
      if (!running.isAlive(job)) return;
      yield running.advance(job, 'decode', 1, total);
      const { width, height } = size;
      yield { job, kind: 'frames', seed, width, height, frames: frames.map((frame) => rgbFromImage(frame, size)) };
    }
    if (running.endsWithPicture(job)) yield { job, kind: 'done', forwards: running.forwards(job) };
  }

  async #start(request: GenerationRequest, size: ClipSize, given: Float32Array | undefined): Promise<Start> {
    const { steps, scheduler: name, init, seeds } = request;
    const { known, shift = flowShiftOf(this.networks.config.transformer, request) } = clipOf(request);
    const scheduler = createFlowScheduler(name, { shift, steps });
    const { z_dim: channels } = this.networks.config.vae;
    const generator = new TorchCpuGenerator(seeds[0] ?? 0);
    const noise = given ?? generator.randn(channels * size.frames * size.height * size.width);
    if (init !== undefined) {
      const clean = await this.networks.encodeLatents([imageFromRgb(init.rgb, request)], request);
      return { latents: scheduler.addNoise(clean, noise, firstStep(request)), scheduler, held: undefined };
    }
    const isHeld = known?.method === 'latent_hold';
    const held = isHeld
      ? await HeldLatents.encode(this.networks, known, request, { noise, size, channels })
      : undefined;
    return { latents: noise, scheduler, held };
  }
}

function clipSize(request: GenerationRequest): ClipSize {
  const { width, height } = request;
  return { width, height, frames: clipOf(request).frames };
}

function clipOf({ clip }: GenerationRequest): ClipRequest {
  if (clip === undefined) throw new Error('a request to WAN without a clip');
  return clip;
}

/** What the velocity says the clip will be: x = (1 - sigma) x0 + sigma noise, and the velocity is noise - x0. */
function cleanClip(latents: Float32Array, flow: Float32Array, sigma: number): Float32Array {
  return latents.map((x, i) => x - sigma * (flow[i] ?? 0));
}

function noNoise(): never {
  throw new Error('flow samplers draw no noise');
}
