import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import type { Backend } from '../../runtime/backend.js';
import { createFlowScheduler } from '../../schedulers/flow-schedulers.js';
import type { Draw, Scheduler } from '../../schedulers/scheduler.js';
import { firstStep } from '../common/batching.js';
import { rgbFrames } from '../common/frame-form.js';
import { atStep } from '../common/not-finite.js';
import { imageFromRgb } from '../common/rgb-image.js';
import { RunningJobs } from '../common/running-jobs.js';
import type { LoraSource } from '../lora/read-lora.js';
import type { ModelMemory } from '../model-memory.js';
import {
  type GenerationRequest,
  holdsLatents,
  type ModelInfo,
  type Pipeline,
  type PipelineEvent,
  type PipelineJob,
  type VideoRequest,
} from '../pipeline.js';
import { encodeConditions } from './conditioning/conditions.js';
import { HeldLatents } from './conditioning/latent-hold.js';
import { createVaceBlankCache } from './conditioning/vace-control.js';
import { flowShiftOf } from './flow-shift.js';
import { type VideoSize, withoutLeading } from './model/latents.js';
import { loadWanNetworks, type WanNetworks, type WanOptions } from './networks.js';
import { encodePrompts, type Texts } from './prompt/encode-prompts.js';
import { Velocity } from './velocity.js';
import { VideoPreviews } from './video-previews.js';

export async function createWanPipeline(options: WanOptions): Promise<WanPipeline> {
  return new WanPipeline(await loadWanNetworks(options));
}

/** A video's latents at the beginning of its loop. */
interface InitialVideo {
  readonly latents: Float32Array;
  readonly scheduler: Scheduler;
  /** Known frames that are put back after each step. */
  readonly held: HeldLatents | undefined;
  /** More of the noise that it started from, for samplers that add some. */
  readonly draw: Draw;
}

/** A video's latents at the end of its loop. */
export interface DenoisedVideo {
  /** [16, leading + F, h, w] */
  readonly latents: Float32Array;
  /** Latents before the video's own: of images that it was to look like. */
  readonly leading: number;
}

/** Text, or known frames and text, to videos and single frames with WAN 2.1. Jobs run one after the other. */
export class WanPipeline implements Pipeline {
  readonly networks: WanNetworks;
  readonly #blanks = createVaceBlankCache();

  constructor(networks: WanNetworks) {
    this.networks = networks;
  }

  async *generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined> {
    const running = new RunningJobs(jobs);
    for (const [job, { request }] of jobs.entries()) {
      yield* running.untilCancelled([job], () => this.#make(job, request, running));
    }
  }

  async *#make(
    job: number,
    request: GenerationRequest,
    running: RunningJobs,
  ): AsyncGenerator<PipelineEvent, void, undefined> {
    const texts = yield* encodePrompts(job, request, running, this.networks.prompts);
    const denoised = texts && (yield* this.denoise(job, request, texts, running));
    if (denoised !== undefined) yield* this.#decode(job, request, denoised, running);
  }

  /**
   * One video's loop.
   * @param noise unscaled; omitted, drawn from the seed
   * @returns undefined when the job ended meanwhile
   */
  async *denoise(
    job: number,
    request: GenerationRequest,
    texts: Texts,
    running: RunningJobs,
    noise?: Float32Array,
  ): AsyncGenerator<PipelineEvent, DenoisedVideo | undefined, undefined> {
    const conditions = yield* encodeConditions(job, running, this.networks, this.#blanks, request);
    if (conditions === undefined) return undefined;
    const { condition, leading } = conditions;
    const own = this.networks.autoencoder.latentSize(videoSize(request));
    const size = { ...own, frames: leading + own.frames };
    const signal = running.signalOf(job);
    const { scheduler, held, draw, latents: initial } = await this.#start(request, size, noise, signal);
    const { timesteps, sigmas } = scheduler;
    const { relief } = this.networks;
    const loop = { request, texts, size, timesteps: [...timesteps], sigmas: [...sigmas], condition, signal, relief };
    const velocity = await Velocity.plan(this.networks.denoiser, loop);
    const previews = new VideoPreviews(job, request, size, leading, this.networks.config.vae.z_dim);
    const first = firstStep(request);
    let latents = held?.putBack(initial, sigmas[first] ?? 1) ?? initial;
    for (let i = first; i < request.steps; i += 1) {
      yield* running.checkCancelled();
      if (!running.isAlive(job)) return undefined;
      // 1. the velocity from latents to noise: the transformer over one text, or over two and guided
      const input = latents;
      const { flow, forwards } = await atStep(i, request.steps, () => velocity.at(i, input));
      running.countForwards(job, forwards);
      const due = previews.due(i, latents, flow, sigmas[i] ?? 0);
      // 2. the scheduler's step from this noise level to the next
      latents = scheduler.step(flow, latents, i, draw);
      // 3. known frames again, at the next noise level
      if (held?.holds(i + 1, request.steps)) latents = held.putBack(latents, sigmas[i + 1] ?? 0);
      yield running.advance(job, 'denoise', 1, request.steps - first);
      yield* due;
    }
    return { latents, leading };
  }

  /** The video's own latents, [16, F, h, w]. */
  ownLatents({ latents, leading }: DenoisedVideo, size: VideoSize): Float32Array {
    const { frames } = this.networks.autoencoder.latentSize(size);
    return withoutLeading(latents, leading, leading + frames, this.networks.config.vae.z_dim);
  }

  async *#decode(
    job: number,
    request: GenerationRequest,
    denoised: DenoisedVideo,
    running: RunningJobs,
  ): AsyncGenerator<PipelineEvent, void, undefined> {
    const { autoencoder } = this.networks;
    const size = videoSize(request);
    const { width, height } = size;
    const total = autoencoder.latentSize(size).frames;
    const [seed = 0] = request.seeds;
    // Leaving the loop early releases the tensors that the decoder carries from chunk to chunk.
    const signal = running.signalOf(job);
    let before = 0;
    const latents = this.ownLatents(denoised, size);
    for await (const { frames, done } of autoencoder.decodeChunks(rgbFrames, latents, size, signal)) {
      yield* running.checkCancelled();
      if (!running.isAlive(job)) return;
      yield running.advance(job, 'decode', done - before, total);
      before = done;
      if (frames.length === 0) continue;
      yield { job, kind: 'frames', seed, width, height, frames };
    }
    if (running.finishImage(job)) {
      yield { job, kind: 'done', forwards: running.forwards(job), precisions: this.info.precisions };
    }
  }

  async #start(
    request: GenerationRequest,
    size: VideoSize,
    given: Float32Array | undefined,
    signal: AbortSignal,
  ): Promise<InitialVideo> {
    const { autoencoder, config } = this.networks;
    const { steps, scheduler: name, init, seeds } = request;
    const { known, shift = flowShiftOf(config.transformer, request) } = videoOf(request);
    const scheduler = createFlowScheduler(name, { shift, steps });
    const channels = config.vae.z_dim;
    const generator = new TorchCpuGenerator(seeds[0] ?? 0);
    const draw = (count: number) => generator.randn(count);
    const noise = given ?? draw(channels * size.frames * size.height * size.width);
    if (init !== undefined) {
      const clean = await autoencoder.encodeLatents([imageFromRgb(init.rgb, request)], request, signal);
      return { latents: scheduler.addNoise(clean, noise, firstStep(request)), scheduler, held: undefined, draw };
    }
    const isHeld = known !== undefined && holdsLatents(known.method);
    const own = { noise, size, channels };
    const held = isHeld ? await HeldLatents.encode(autoencoder, known, request, own, signal) : undefined;
    return { latents: noise, scheduler, held, draw };
  }

  get info(): ModelInfo {
    return this.networks.info;
  }

  planMemory(): ModelMemory {
    return this.networks.planMemory();
  }

  get backend(): Backend {
    return this.networks.backend;
  }

  get variantBytes(): number {
    return this.networks.variantBytes;
  }

  /** The same model with LoRAs folded in; it is disposed of before its base. */
  async withLoras(loras: readonly LoraSource[]): Promise<WanPipeline> {
    return new WanPipeline(await this.networks.withLoras(loras));
  }

  dispose(): Promise<void> {
    return this.networks.release();
  }
}

function videoSize(request: GenerationRequest): VideoSize {
  const { width, height } = request;
  return { width, height, frames: videoOf(request).frames };
}

function videoOf({ video }: GenerationRequest): VideoRequest {
  if (video === undefined) throw new Error('a request to WAN without a video');
  return video;
}
