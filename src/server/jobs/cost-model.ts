import type { EngineTimings } from '../../engine/messages.js';
import { batchLimit } from '../../pipelines/common/batching.js';
import { plannedForwards } from '../../pipelines/common/guidance.js';
import type { GenerationRequest } from '../../pipelines/pipeline.js';

/** How much the last job counts against all before it. */
const SMOOTHING = 0.3;

/** What a job is expected to take, a part each, in seconds. */
export interface Cost {
  readonly encode: number;
  readonly denoise: number;
  /** VAE and files. */
  readonly decode: number;
  readonly total: number;
}

/** Smoothed seconds of the parts of a job at one size. */
interface Rates {
  /** One run of the denoiser over one picture: two of them are a guided step. */
  readonly forward: number;
  /** One picture through the VAE and into its file. */
  readonly decode: number;
}

/**
 * What jobs of one model take, learnt from those that ended. A picture's steps cost the same each; sizes that were not seen
 * are scaled by their pixels from the nearest that was.
 */
export class CostModel {
  readonly #rates = new Map<number, Rates>();
  #encode: number | undefined;
  #peakBytes = 0;
  #loadedBytes: number | undefined;
  /** Memory above the loaded model, a pixel denoised at once. */
  #bytesPerPixel: number | undefined;
  readonly #batchPixels: number;

  /** @param batchPixels that the engine denoises at once */
  constructor(batchPixels: number) {
    this.#batchPixels = batchPixels;
  }

  /** Learns from a job that ended. */
  observe(request: GenerationRequest, timings: EngineTimings): void {
    const { batchImages, peakBytes } = timings;
    const pixels = pixelsOf(request);
    const seen = this.#rates.get(pixels);
    this.#observePeak(request, batchImages, peakBytes);
    // Where jobs ran together, the time of one holds parts of the others' decode.
    if (batchImages > request.seeds.length && seen !== undefined) return;
    const forwards = timings.forwards ?? plannedForwards(request) * batchImages;
    this.#rates.set(pixels, {
      forward: smooth(seen?.forward, timings.denoiseMs / 1000 / forwards),
      decode: smooth(seen?.decode, (timings.decodeMs + timings.mediaMs) / 1000 / batchImages),
    });
    this.#encode = smooth(this.#encode, timings.encodeMs / 1000);
  }

  /** The engine process's memory once the model was loaded, before any job. */
  observeLoaded(bytes: number | undefined): void {
    this.#loadedBytes ??= bytes;
  }

  /**
   * undefined until a job ended. Steps that reuse a residual are counted as if they did not: which ones do, the engine finds out
   * from the weights.
   */
  estimate(request: GenerationRequest): Cost | undefined {
    const rates = this.#ratesAt(pixelsOf(request));
    if (rates === undefined || this.#encode === undefined) return undefined;
    const images = request.seeds.length;
    const encode = this.#encode;
    const denoise = rates.forward * plannedForwards(request) * images;
    const decode = rates.decode * images;
    return { encode, denoise, decode, total: encode + denoise + decode };
  }

  /** undefined until a job was measured. */
  peakBytes(request: GenerationRequest): number | undefined {
    if (this.#loadedBytes === undefined || this.#bytesPerPixel === undefined) return undefined;
    return Math.round(this.#loadedBytes + this.#bytesPerPixel * this.#pixelsAtOnce(request, request.seeds.length));
  }

  // The peak never falls: only the job that raised it says anything about its size.
  #observePeak(request: GenerationRequest, images: number, peakBytes: number): void {
    if (this.#loadedBytes === undefined || peakBytes <= this.#peakBytes) return;
    this.#peakBytes = peakBytes;
    this.#bytesPerPixel = Math.max(0, peakBytes - this.#loadedBytes) / this.#pixelsAtOnce(request, images);
  }

  #pixelsAtOnce(request: GenerationRequest, images: number): number {
    return pixelsOf(request) * Math.min(images, batchLimit(request, this.#batchPixels));
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

/** Of all frames. */
function pixelsOf({ width, height, clip }: GenerationRequest): number {
  return width * height * (clip?.frames ?? 1);
}

function smooth(before: number | undefined, now: number): number {
  return before === undefined ? now : before + SMOOTHING * (now - before);
}
