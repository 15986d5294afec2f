import type { EngineTimings } from '../../engine/messages.js';
import { batchLimit } from '../../pipelines/common/batching.js';
import { plannedWork } from '../../pipelines/common/guidance.js';
import { passesOf } from '../../pipelines/common/passes.js';
import type { GenerationRequest } from '../../pipelines/pipeline.js';

/** Weight of the last job in the moving average. */
const SMOOTHING = 0.3;

/** Expected seconds of a job, by part. */
export interface Cost {
  readonly encode: number;
  readonly denoise: number;
  /** VAE decode and file encoding. */
  readonly decode: number;
  readonly total: number;
}

/** Moving averages of one image size, in seconds. */
interface Rates {
  /** One denoiser run over one image. A guided step takes two. */
  readonly forward: number;
  /** VAE decode and file encoding of one image. */
  readonly decode: number;
}

/**
 * Predicts time and memory of one model's jobs from the jobs that ended. Steps of an image cost the same. The time of unseen sizes is
 * scaled by pixels from the nearest seen one, the memory by what their networks were computed to take.
 */
export class CostModel {
  readonly #rates = new Map<number, Rates>();
  #encode: number | undefined;
  #peakBytes = 0;
  /** Largest extent of a run that began: what was computed of it, else its pixels. */
  #largestExtent = 0;
  #loadedBytes: number | undefined;
  /** Memory above that of the loaded model, for each unit of extent. */
  #bytesPerExtent: number | undefined;
  readonly #batchPixels: number;
  readonly #plannedBytes: (request: GenerationRequest) => number | undefined;

  /**
   * @param batchPixels largest number of pixels that the engine denoises at once
   * @param plannedBytes computes what jobs take above the loaded model, for all of their images; undefined where that is not known.
   *   Default: it never is
   */
  constructor(batchPixels: number, plannedBytes: (request: GenerationRequest) => number | undefined = () => undefined) {
    this.#batchPixels = batchPixels;
    this.#plannedBytes = plannedBytes;
  }

  /** Learns from a job that ended. */
  observe(request: GenerationRequest, timings: EngineTimings): void {
    const { batchImages, peakBytes } = timings;
    const pixels = pixelsOf(request);
    const seen = this.#rates.get(pixels);
    this.#observeSize(request, batchImages);
    this.#observePeak(peakBytes);
    // In a batch, the time of one job contains parts of the others' decode. The times of two passes are one sum.
    const isMixed = batchImages > request.seeds.length || request.upscale !== undefined;
    if (isMixed && seen !== undefined) return;
    // Work and decodes of all passes, as those of this size: they go by pixels.
    const passes = passesOf(request).map((pass) => ({ pass, share: pixelsOf(pass) / pixels }));
    const work = passes.reduce((sum, { pass, share }) => sum + plannedWork(pass) * share, 0);
    const decodes = passes.reduce((sum, { share }) => sum + share, 0);
    const forwards = timings.forwards ?? work * batchImages;
    this.#rates.set(pixels, {
      forward: smooth(seen?.forward, timings.denoiseMs / 1000 / forwards),
      decode: smooth(seen?.decode, (timings.decodeMs + timings.mediaMs) / 1000 / (decodes * batchImages)),
    });
    this.#encode = smooth(this.#encode, timings.encodeMs / 1000);
  }

  /** Records the size of a job before it runs: one that is cancelled has raised the peak, too. */
  observeStarted(request: GenerationRequest): void {
    this.#observeSize(request, request.seeds.length);
  }

  /** Records the memory of the engine process after loading, before the first job. */
  observeLoaded(bytes: number | undefined): void {
    this.#loadedBytes ??= bytes;
  }

  /**
   * Undefined until a job ended. Steps that reuse a residual count as full steps: only the engine knows which ones do.
   */
  estimate(request: GenerationRequest): Cost | undefined {
    const images = request.seeds.length;
    let [denoise, decode] = [0, 0];
    for (const pass of passesOf(request)) {
      const rates = this.#ratesAt(pixelsOf(pass));
      if (rates === undefined) return undefined;
      denoise += rates.forward * plannedWork(pass) * images;
      decode += rates.decode * images;
    }
    const encode = this.#encode;
    return encode === undefined ? undefined : { encode, denoise, decode, total: encode + denoise + decode };
  }

  /** Undefined until a job was measured. */
  peakBytes(request: GenerationRequest): number | undefined {
    if (this.#loadedBytes === undefined || this.#bytesPerExtent === undefined) return undefined;
    return Math.round(this.#loadedBytes + this.#bytesPerExtent * this.#extentOf(request));
  }

  #observeSize(request: GenerationRequest, images: number): void {
    const seeds = Array.from({ length: images }, () => 0);
    this.#largestExtent = Math.max(this.#largestExtent, this.#extentOf({ ...request, seeds }));
  }

  // The peak never falls: it is that of the largest run, whichever job is told of it.
  #observePeak(peakBytes: number): void {
    if (this.#loadedBytes === undefined) return;
    this.#peakBytes = Math.max(this.#peakBytes, peakBytes);
    this.#bytesPerExtent = Math.max(0, this.#peakBytes - this.#loadedBytes) / this.#largestExtent;
  }

  #extentOf(request: GenerationRequest): number {
    const planned = this.#plannedBytes(request);
    if (planned !== undefined) return planned;
    const largest = largestOf(request);
    return pixelsOf(largest) * Math.min(request.seeds.length, batchLimit(largest, this.#batchPixels));
  }

  #ratesAt(pixels: number): Rates | undefined {
    const known = this.#rates.get(pixels);
    if (known !== undefined) return known;
    const nearest = [...this.#rates].sort(
      ([a], [b]) => Math.abs(Math.log(a / pixels)) - Math.abs(Math.log(b / pixels)),
    )[0];
    if (nearest === undefined) return undefined;
    const [size, { forward, decode }] = nearest;
    return { forward: (forward * pixels) / size, decode: (decode * pixels) / size };
  }
}

/** The pass of the most pixels. */
function largestOf(request: GenerationRequest): GenerationRequest {
  return passesOf(request).reduce((largest, pass) => (pixelsOf(pass) > pixelsOf(largest) ? pass : largest));
}

/** Pixels of all frames. */
function pixelsOf({ width, height, video }: GenerationRequest): number {
  return width * height * (video?.frames ?? 1);
}

function smooth(before: number | undefined, now: number): number {
  return before === undefined ? now : before + SMOOTHING * (now - before);
}
