import { InferenceError } from '../../errors.js';
import type { Backend } from '../../runtime/backend.js';
import { join32, split32 } from '../../std/concat-float32.js';
import { groupBy } from '../../std/group-by.js';
import { batchLimit } from '../common/batching.js';
import { guideThresholded, rescaleGuided } from '../common/guidance.js';
import { keepUnmasked, shrinkMask } from '../common/mask.js';
import { cropInit, cropPixels, maskedRegion, pasteRegion } from '../common/mask-crop.js';
import { atStep } from '../common/not-finite.js';
import { secondRequest } from '../common/passes.js';
import { imageFromRgb, rgbFromImage } from '../common/rgb-image.js';
import { RunningJobs } from '../common/running-jobs.js';
import type { LoraSource } from '../lora/read-lora.js';
import type { ModelMemory } from '../model-memory.js';
import type {
  GenerationRequest,
  ImageEvent,
  ModelInfo,
  Pipeline,
  PipelineEvent,
  PipelineJob,
  RequestUpscale,
} from '../pipeline.js';
import type { JobImagePrompt } from './control/image-prompts.js';
import type { JobControl } from './control/job-controls.js';
import { batches, type CroppedInit, ImageLatents, type ImageOptions } from './image-latents.js';
import { ImagePreviews } from './image-previews.js';
import { loadSdxlNetworks, type SdxlNetworks, type SdxlOptions } from './networks.js';
import { predictBatch } from './predict-batch.js';
import { type Conditioning, encodePrompts } from './prompt/encode-prompts.js';
import { enlargeRgb, resizeControls, resizeLatents } from './second-pass.js';

export interface SdxlPipelineOptions extends SdxlOptions {
  /** Pixels of all images that are denoised together; a single one may have more. Omitted: three of the native size. */
  readonly batchPixels?: number | undefined;
}

/** Images of the native size that are denoised together. */
const DEFAULT_BATCH = 3;

export async function createSdxlPipeline({ batchPixels, ...options }: SdxlPipelineOptions): Promise<SdxlPipeline> {
  const networks = await loadSdxlNetworks(options);
  const { nativeWidth, nativeHeight } = networks.info;
  return new SdxlPipeline(networks, batchPixels ?? DEFAULT_BATCH * nativeWidth * nativeHeight);
}

/** Text, or an image and text, to images with SDXL. Between two `run()`s is host arithmetic over kilobytes of latents. */
export class SdxlPipeline implements Pipeline {
  readonly networks: SdxlNetworks;
  readonly #batchPixels: number;

  constructor(networks: SdxlNetworks, batchPixels: number) {
    this.networks = networks;
    this.#batchPixels = batchPixels;
  }

  async *generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined> {
    const running = new RunningJobs(jobs);
    const images: ImageLatents[] = [];
    for (const [job, { request }] of jobs.entries()) {
      const prepared = yield* running.untilCancelled([job], (signal) => this.#prepare(job, request, running, signal));
      images.push(...(prepared ?? []));
    }
    try {
      const enlarged = yield* this.#pass(images, running);
      yield* this.#pass(enlarged, running);
    } finally {
      await this.networks.controlNets.trim();
      await this.networks.upscalers.trim();
    }
  }

  /** Denoises images and decodes them. @returns those of a second pass, at the beginning of its steps */
  async *#pass(
    images: readonly ImageLatents[],
    running: RunningJobs,
  ): AsyncGenerator<PipelineEvent, readonly ImageLatents[], undefined> {
    const enlarged: ImageLatents[] = [];
    const inputs = new Map<number, SharedInputs>();
    for (const batch of batches(images, (request) => batchLimit(request, this.#batchPixels))) {
      yield* this.denoise(batch, running);
      enlarged.push(...(yield* this.#decode(batch, running, inputs)));
    }
    return enlarged;
  }

  /** Takes images of one size and schedule through their steps together. */
  async *denoise(batch: readonly ImageLatents[], running: RunningJobs): AsyncGenerator<PipelineEvent, void, undefined> {
    const jobs = batch.map(({ job }) => job);
    yield* running.untilCancelled(jobs, (signal) => this.#steps(batch, running, signal));
  }

  async *#steps(
    batch: readonly ImageLatents[],
    running: RunningJobs,
    signal: AbortSignal,
  ): AsyncGenerator<PipelineEvent, void, undefined> {
    const [{ start, calls }] = batch as [ImageLatents, ...ImageLatents[]];
    const previews = new ImagePreviews(this.networks, batch);
    for (let i = start; i < calls; i += 1) {
      yield* running.checkCancelled();
      const images = running.alive(batch);
      if (images.length === 0) return;
      // 1. one run of the UNet for all images; classifier-free guidance of each from its two rows
      const rows = await atStep(i, calls, () => this.#predict(images, i, signal));
      const noise = new Map([...rows].map(([image, own]) => [image, this.#guided(image, own, i)]));
      const due = previews.due(images, noise, i);
      // 2. the scheduler's step from this noise level to the next
      for (const [image, own] of noise) image.step(i, own);
      // 3. progress and previews, job by job
      for (const [job, own] of groupBy(images, (image) => image.job)) {
        const [first] = own as [ImageLatents, ...ImageLatents[]];
        yield running.advance(job, 'denoise', own.length, first.allCalls * first.request.seeds.length);
        const preview = due.get(job);
        if (preview !== undefined) yield preview;
      }
    }
  }

  /** The noise of one image, from the rows of its negative prompt and its prompt; without guidance there is one row. */
  #guided(image: ImageLatents, rows: Float32Array, call: number): Float32Array {
    const { conditioning, request } = image;
    if (conditioning.rows.length === 1) return rows;
    const [negative, prompt] = split32(rows, rows.length / 2) as [Float32Array, Float32Array];
    const channels = this.networks.config.vae.latent_channels;
    const guided = guideThresholded(negative, prompt, request, () => image.sample(call), channels);
    return rescaleGuided(guided, prompt, request.guidanceRescale ?? 0);
  }

  /** Where memory runs out, the rows go through the UNet in two runs, then in four and so on, at last each alone. */
  #predict(images: readonly ImageLatents[], step: number, signal: AbortSignal): ReturnType<typeof predictBatch> {
    const rows = images.reduce((sum, { conditioning }) => sum + conditioning.rows.length, 0);
    const { width, height } = (images[0] as ImageLatents).request;
    const attempts = [{ run: () => predictBatch(this.networks, images, step, { signal }) }];
    const smaller = halvings(rows).map((maxRows) => ({
      measure: `denoised_${maxRows}_at_once`,
      run: () => predictBatch(this.networks, images, step, { signal, maxRows }),
    }));
    return this.networks.relief.shrink(`denoise ${rows} ${width}x${height}`, [...attempts, ...smaller]);
  }

  /**
   * An image at the beginning of its steps.
   * @param noise unscaled; omitted, drawn from the seed
   */
  startImage(
    job: number,
    request: GenerationRequest,
    index: number,
    conditioning: Conditioning,
    { initLatents, maskChannels, cropped, noise, controls, imagePrompt, before }: ImageInputs = {},
  ): ImageLatents {
    const { config, autoencoder } = this.networks;
    const latentSize = autoencoder.latentSize(request);
    const { width, height } = latentSize;
    const mask = request.init?.mask;
    const latentMask = mask && shrinkMask(mask, request, latentSize);
    const size = config.vae.latent_channels * width * height;
    const schedulerConfig = config.scheduler;
    return new ImageLatents({
      job,
      request,
      index,
      conditioning,
      schedulerConfig,
      size,
      initLatents,
      latentMask,
      maskChannels,
      cropped,
      controls,
      imagePrompt,
      noise,
      before,
    });
  }

  /** Encodes the prompts, and the image to start from where the request has one. */
  async *#prepare(
    job: number,
    whole: GenerationRequest,
    running: RunningJobs,
    signal: AbortSignal,
  ): AsyncGenerator<PipelineEvent, readonly ImageLatents[], undefined> {
    const { prompts, autoencoder, config } = this.networks;
    const { request, cropped } = croppedToMask(whole);
    const conditioning = yield* encodePrompts(job, request, running, prompts, config.forceZerosForEmptyPrompt);
    yield* running.checkCancelled();
    if (conditioning === undefined || !running.isAlive(job)) return [];
    const { init } = request;
    const initLatents = init && (await autoencoder.encodeLatents(imageFromRgb(init.rgb, request), request, signal));
    const controls = await this.embedControls(request, signal);
    const maskChannels = await this.maskChannels(request, signal);
    const imagePrompt = await this.encodeImagePrompt(request, signal);
    const inputs = { initLatents, maskChannels, cropped, controls, imagePrompt };
    return request.seeds.map((_, index) => this.startImage(job, request, index, conditioning, inputs));
  }

  /**
   * What a UNet of 9 channels takes beside the latents, [5, h, w]: the mask, and the latents of the image with the masked part grey.
   * Without a mask everything is drawn anew. Undefined for other UNets.
   * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl_inpaint.py#L970
   */
  async maskChannels(request: GenerationRequest, signal?: AbortSignal): Promise<Float32Array | undefined> {
    const { config, autoencoder } = this.networks;
    if (config.unet.in_channels === config.vae.latent_channels) return undefined;
    const { rgb, mask } = request.init?.mask === undefined ? {} : request.init;
    const area = request.width * request.height;
    // Grey is between: the network was trained on black and white.
    const drawn = Uint8Array.from({ length: area }, (_, i) => ((mask?.[i] ?? 255) >= 128 ? 255 : 0));
    const image = rgb === undefined ? new Float32Array(3 * area) : imageFromRgb(rgb, request);
    const rest = image.map((value, i) => (drawn[i % area] === 0 ? value : 0));
    const latents = await autoencoder.encodeLatents(rest, request, signal);
    return join32([shrinkMask(drawn, request, autoencoder.latentSize(request)), latents]);
  }

  /** @throws InferenceError MODEL_UNSUPPORTED for a model without an IP-Adapter */
  async encodeImagePrompt(
    { imagePrompt }: Pick<GenerationRequest, 'imagePrompt'>,
    signal?: AbortSignal,
  ): Promise<JobImagePrompt | undefined> {
    if (imagePrompt === undefined) return undefined;
    const { imagePrompts } = this.networks;
    if (imagePrompts === undefined)
      throw new InferenceError('MODEL_UNSUPPORTED', 'the model has no IP-Adapter, which an image prompt needs');
    return imagePrompts.encode(imagePrompt, signal);
  }

  /** The ControlNets of a request, each with the embedding of its image. */
  async embedControls(request: GenerationRequest, signal?: AbortSignal): Promise<readonly JobControl[]> {
    const embedded: JobControl[] = [];
    for (const { rgb, ...control } of request.controls ?? []) {
      const net = await this.networks.controlNets.get(control);
      embedded.push({ ...control, net, hint: await net.embed(rgb, request, { mode: control.mode, signal }) });
    }
    return embedded;
  }

  /** @param inputs of the second pass, by job */
  async *#decode(
    batch: readonly ImageLatents[],
    running: RunningJobs,
    inputs: Map<number, SharedInputs>,
  ): AsyncGenerator<PipelineEvent, readonly ImageLatents[], undefined> {
    const enlarged: ImageLatents[] = [];
    for (const image of batch) {
      yield* running.checkCancelled();
      if (!running.isAlive(image.job)) continue;
      const next = yield* running.untilCancelled([image.job], (signal) =>
        image.request.upscale === undefined
          ? this.#decodeImage(image, running, signal)
          : this.#enlarge(image, image.request.upscale, { running, inputs, signal }),
      );
      if (next !== undefined) enlarged.push(next);
    }
    return enlarged;
  }

  async *#decodeImage(
    image: ImageLatents,
    running: RunningJobs,
    signal: AbortSignal,
  ): AsyncGenerator<PipelineEvent, undefined, undefined> {
    const { job, request } = image;
    const drawn = rgbFromImage(await this.networks.autoencoder.decode(image.latents, request, signal), request);
    const rgb = withKept(drawn, request, image.cropped);
    yield running.advance(job, 'decode', 1, image.decodes * request.seeds.length);
    yield* this.#finish(image, { width: request.width, height: request.height, rgb }, running);
  }

  /** Enlarges an image that went through its steps. @returns the image of the second pass; undefined if there is none */
  async *#enlarge(
    image: ImageLatents,
    upscale: RequestUpscale,
    { running, inputs, signal }: { running: RunningJobs; inputs: Map<number, SharedInputs>; signal: AbortSignal },
  ): AsyncGenerator<PipelineEvent, ImageLatents | undefined, undefined> {
    const { autoencoder, upscalers } = this.networks;
    const { job, request, latents } = image;
    const second = secondRequest(request, upscale);
    let initLatents: Float32Array;
    if (upscale.method === 'latent') {
      initLatents = resizeLatents(latents, autoencoder.latentSize(request), autoencoder.latentSize(second));
    } else {
      const drawn = rgbFromImage(await autoencoder.decode(latents, request, signal), request);
      yield running.advance(job, 'decode', 1, image.decodes * request.seeds.length);
      const rgb = await enlargeRgb(drawn, request, upscale, upscalers, signal);
      if (upscale.strength === 0) {
        yield* this.#finish(image, { width: second.width, height: second.height, rgb }, running);
        return undefined;
      }
      initLatents = await autoencoder.encodeLatents(imageFromRgb(rgb, second), second, signal);
    }
    const shared = inputs.get(job) ?? (await this.#sharedInputs(request, second, signal));
    inputs.set(job, shared);
    return this.startImage(job, second, image.index, image.conditioning, {
      ...shared,
      imagePrompt: image.imagePrompt,
      initLatents,
      before: image,
    });
  }

  /** What the second pass of a job takes, whichever image it is. */
  async #sharedInputs(
    request: GenerationRequest,
    second: GenerationRequest,
    signal: AbortSignal,
  ): Promise<SharedInputs> {
    const resized = await resizeControls(request.controls, request, second);
    return {
      controls: await this.embedControls({ ...second, controls: resized }, signal),
      maskChannels: await this.maskChannels(second, signal),
    };
  }

  *#finish(
    { job, index, seed }: ImageLatents,
    image: Pick<ImageEvent, 'width' | 'height' | 'rgb'>,
    running: RunningJobs,
  ): Generator<PipelineEvent, undefined, undefined> {
    yield { job, kind: 'image', index, seed, ...image };
    if (running.finishImage(job)) yield { job, kind: 'done', precisions: this.info.precisions };
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
  async withLoras(loras: readonly LoraSource[]): Promise<SdxlPipeline> {
    return new SdxlPipeline(await this.networks.withLoras(loras), this.#batchPixels);
  }

  dispose(): Promise<void> {
    return this.networks.release();
  }
}

/** A request for the masked part alone, where it asks for that; the other fields are the same. */
function croppedToMask(request: GenerationRequest): {
  readonly request: GenerationRequest;
  readonly cropped?: CroppedInit;
} {
  const { init } = request;
  if (init?.mask === undefined || init.cropPadding === undefined) return { request };
  const { rgb, mask } = init;
  const region = maskedRegion(mask, request, init.cropPadding);
  if (region === undefined) return { request };
  const part = cropInit({ ...init, mask }, request, region);
  const controls = request.controls?.map((control) => ({ ...control, rgb: cropPixels(control.rgb, request, region) }));
  return { request: { ...request, init: part, controls }, cropped: { region, rgb, mask } };
}

/** What was drawn, with the pixels that the mask keeps. */
function withKept(drawn: Uint8Array, request: GenerationRequest, cropped: CroppedInit | undefined): Uint8Array {
  const { rgb, mask } = cropped ?? request.init ?? {};
  if (rgb === undefined || mask === undefined) return drawn;
  const placed = cropped === undefined ? drawn : pasteRegion(drawn, rgb, request, cropped.region);
  return keepUnmasked(placed, rgb, mask);
}

/** What an image starts from, beside its conditioning. */
type ImageInputs = Pick<
  ImageOptions,
  'initLatents' | 'maskChannels' | 'cropped' | 'noise' | 'controls' | 'imagePrompt' | 'before'
>;

type SharedInputs = Pick<ImageOptions, 'controls' | 'maskChannels'>;

/** Half of a number, half of that and so on, rounded up, to 1. */
function halvings(count: number): readonly number[] {
  return count <= 1 ? [] : [Math.ceil(count / 2), ...halvings(Math.ceil(count / 2))];
}
