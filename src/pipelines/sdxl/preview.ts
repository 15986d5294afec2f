import { cleanSample, type Prediction } from '../../schedulers/prediction.js';
import type { ImageSize } from './networks.js';

/**
 * How much red, green and blue (-1 to 1) each channel of SDXL's scaled latents stands for: a linear fit that others measured on
 * the released VAE. https://github.com/comfyanonymous/ComfyUI/blob/v0.2.7/comfy/latent_formats.py#L33
 */
const RGB_OF_CHANNEL = [
  [0.392, 0.4054, 0.4549],
  [-0.2634, -0.0196, 0.0653],
  [0.0568, 0.1687, -0.0755],
  [-0.3112, -0.2359, -0.2076],
] as const;

/** Latents [1, 4, height, width] to a picture of one pixel each: uint8 [height, width, 3]. */
export function previewFromLatents(
  latents: Float32Array,
  { width, height }: ImageSize,
): { width: number; height: number; rgb: Uint8Array } {
  const area = width * height;
  const rgb = new Uint8ClampedArray(area * 3);
  for (let i = 0; i < area; i += 1) {
    for (let colour = 0; colour < 3; colour += 1) {
      const value = RGB_OF_CHANNEL.reduce((sum, row, c) => sum + (latents[c * area + i] ?? 0) * (row[colour] ?? 0), 0);
      rgb[i * 3 + colour] = (value * 0.5 + 0.5) * 255;
    }
  }
  return { width, height, rgb: new Uint8Array(rgb.buffer) };
}

/**
 * What the denoiser's output says the picture will be.
 * @param input the sample as the denoiser saw it, of variance 1
 * @param sigma the noise level, as noise over signal
 */
export function cleanLatents(
  input: Float32Array,
  output: Float32Array,
  sigma: number,
  prediction: Prediction,
): Float32Array {
  const alpha = 1 / Math.sqrt(sigma ** 2 + 1);
  const toClean = cleanSample(prediction, alpha, sigma * alpha);
  return input.map((x, j) => toClean(output[j] ?? 0, x));
}

/** Lets previews through at a rate; the first one at once. */
export class PreviewClock {
  readonly #intervalMs: number;
  #nextMs = Number.NEGATIVE_INFINITY;

  /** @param perSecond 0: never */
  constructor(perSecond: number) {
    this.#intervalMs = 1000 / perSecond;
  }

  isDue(nowMs: number): boolean {
    if (this.#intervalMs === Number.POSITIVE_INFINITY || nowMs < this.#nextMs) return false;
    this.#nextMs = nowMs + this.#intervalMs;
    return true;
  }
}
