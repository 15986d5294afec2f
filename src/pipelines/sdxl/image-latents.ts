import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import { createScheduler, firstCallOf, predictionOf } from '../../schedulers/beta-schedulers.js';
import type { Prediction } from '../../schedulers/prediction.js';
import type { Scheduler } from '../../schedulers/scheduler.js';
import { groupBy } from '../../std/group-by.js';
import type { Tile } from '../../std/plane.js';
import { batchKey, firstStep } from '../common/batching.js';
import type { NoisySample } from '../common/clean-latents.js';
import type { GenerationRequest } from '../pipeline.js';
import type { JobImagePrompt } from './control/image-prompts.js';
import type { JobControl } from './control/job-controls.js';
import type { Conditioning } from './prompt/encode-prompts.js';
import { decodesOf, secondCalls } from './second-pass.js';

export interface ImageOptions {
  /** Index of its job among those that run together. */
  readonly job: number;
  readonly request: GenerationRequest;
  /** Index of the image in its job. */
  readonly index: number;
  readonly conditioning: Conditioning;
  /** The checkpoint's `scheduler_config.json`. */
  readonly schedulerConfig: unknown;
  /** Number of elements of its latents. */
  readonly size: number;
  /** Scaled latents to start from: image to image. */
  readonly initLatents?: Float32Array | undefined;
  /** Inpainting: 1 for latents that are drawn anew, 0 for those that are kept, [h, w]. */
  readonly latentMask?: Float32Array | undefined;
  /** For a UNet of 9 channels, [5, h, w]: see `UNetCall`. The rest of the image is not put back then. Omitted: it takes none. */
  readonly maskChannels?: Float32Array | undefined;
  /** What `request.init` was cut out of. Omitted: it is whole. */
  readonly cropped?: CroppedInit | undefined;
  /** ControlNets, with the job's images. Omitted: none. */
  readonly controls?: readonly JobControl[] | undefined;
  /** The reference that an IP-Adapter lets it look like. Omitted: none. */
  readonly imagePrompt?: JobImagePrompt | undefined;
  /** Unscaled initial noise; omitted, torch's CPU generator draws it from the seed. */
  readonly noise?: Float32Array | undefined;
  /** The same image in its first pass. Omitted: this is the first. */
  readonly before?: ImageLatents | undefined;
}

/** The image and the mask that a part was cut out of. */
export interface CroppedInit {
  readonly region: Tile;
  readonly rgb: Uint8Array;
  readonly mask: Uint8Array;
}

interface KeptLatents {
  /** Of the image that is kept, without noise. */
  readonly latents: Float32Array;
  readonly mask: Float32Array;
  /** The initial noise. */
  readonly noise: Float32Array;
}

/** One image on its way from noise: its own scheduler, its own stream of random numbers, its latents. */
export class ImageLatents {
  readonly job: number;
  readonly request: GenerationRequest;
  readonly index: number;
  readonly conditioning: Conditioning;
  readonly controls: readonly JobControl[];
  readonly imagePrompt: JobImagePrompt | undefined;
  readonly maskChannels: Float32Array | undefined;
  readonly cropped: CroppedInit | undefined;
  /** The first call of the denoiser: 0, or later with image to image. */
  readonly start: number;
  /** Calls that are run for the image, and times that it is decoded, over all of its passes. */
  readonly allCalls: number;
  readonly decodes: number;
  /** [1, 4, h, w] */
  latents: Float32Array;
  /** Deep features of the last whole run of the UNet, a row of text each, where a later call reuses them. */
  deep: readonly Float32Array[] = [];
  readonly #scheduler: Scheduler;
  readonly #prediction: Prediction;
  readonly #generator: TorchCpuGenerator;
  readonly #kept: KeptLatents | undefined;

  constructor(options: ImageOptions) {
    const { job, request, index, conditioning, schedulerConfig, size, initLatents, latentMask, controls, noise } =
      options;
    this.job = job;
    this.request = request;
    this.index = index;
    this.conditioning = conditioning;
    this.controls = controls ?? [];
    this.imagePrompt = options.imagePrompt;
    this.maskChannels = options.maskChannels;
    this.cropped = options.cropped;
    this.start = firstCallOf(request.scheduler, firstStep(request));
    this.#prediction = predictionOf(schedulerConfig);
    this.#scheduler = createScheduler(request.scheduler, schedulerConfig, request.steps);
    this.allCalls = options.before?.allCalls ?? this.calls - this.start + secondCalls(request, schedulerConfig);
    this.decodes = options.before?.decodes ?? decodesOf(request);
    this.#generator = new TorchCpuGenerator(this.seed);
    const drawn = noise ?? this.#generator.randn(size);
    const isKept = options.maskChannels === undefined;
    this.#kept =
      isKept && initLatents && latentMask ? { latents: initLatents, mask: latentMask, noise: drawn } : undefined;
    // With a mask, nothing of the image is left in noise of full strength; without one, a trace is. Both as diffusers has it.
    const isNoise = initLatents === undefined || (latentMask !== undefined && request.init?.strength === 1);
    this.latents = isNoise
      ? drawn.map((value) => value * this.#scheduler.initNoiseSigma)
      : this.#scheduler.addNoise(initLatents, drawn, this.start);
  }

  get seed(): number {
    return this.request.seeds[this.index] ?? 0;
  }

  /** Calls of the denoiser in the whole schedule: `callsInStep` of every step. Indices count them. */
  get calls(): number {
    return this.#scheduler.timesteps.length;
  }

  timestep(i: number): number {
    return this.#scheduler.timesteps[i] ?? 0;
  }

  /** Noise level at call `i`. */
  sigma(i: number): number {
    return this.#scheduler.sigmas[i] ?? 0;
  }

  modelInput(i: number): Float32Array {
    return this.#scheduler.scaleModelInput(this.latents, i);
  }

  /** What the denoiser sees at call `i`. */
  sample(i: number): NoisySample {
    return { input: this.modelInput(i), sigma: this.sigma(i), prediction: this.#prediction };
  }

  /** @param output the denoiser's, guided */
  step(i: number, output: Float32Array): void {
    // Samplers that add noise go on in the stream that the initial noise began.
    const next = this.#scheduler.step(output, this.latents, i, (size) => this.#generator.randn(size));
    this.latents = this.#kept === undefined ? next : this.#putBack(next, i, this.#kept);
  }

  /**
   * Puts the kept latents back, with the noise of the next step.
   * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl_inpaint.py#L1630
   */
  #putBack(next: Float32Array, i: number, { latents, mask, noise }: KeptLatents): Float32Array {
    const isLast = i + 1 >= this.calls;
    const kept = isLast ? latents : this.#scheduler.addNoise(latents, noise, i + 1);
    const both = new Float32Array(next.length);
    for (let j = 0; j < both.length; j += 1) {
      const share = mask[j % mask.length] ?? 1;
      both[j] = Math.fround((1 - share) * (kept[j] ?? 0)) + Math.fround(share * (next[j] ?? 0));
    }
    return both;
  }
}

/** Images that can share runs of the denoiser, in lots of at most `limit`. */
export function batches(
  images: readonly ImageLatents[],
  limit: (request: GenerationRequest) => number,
): readonly (readonly ImageLatents[])[] {
  return [...groupBy(images, ({ request }) => batchKey(request)).values()].flatMap((group) => {
    const [first] = group;
    const size = first === undefined ? 1 : limit(first.request);
    return Array.from({ length: Math.ceil(group.length / size) }, (_, k) => group.slice(k * size, (k + 1) * size));
  });
}
