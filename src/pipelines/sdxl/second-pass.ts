import { resizeRgb } from '../../media/resize-rgb.js';
import { createScheduler, firstCallOf } from '../../schedulers/beta-schedulers.js';
import { firstStep } from '../common/batching.js';
import type { KeptFiles } from '../common/kept-files.js';
import type { GenerationRequest, RequestControl, RequestUpscale } from '../pipeline.js';
import type { Upscaler } from '../upscalers/upscaler.js';
import type { ImageSize } from './autoencoder.js';

/** An upscaler draws no larger image, 200 MB of bytes: what it enlarges is made smaller before. */
const MAX_DRAWN_PIXELS = 64 * 1024 * 1024;

/** Calls of the denoiser in the second pass of an image; 0 for a request without one. */
export function secondCalls({ upscale, scheduler }: GenerationRequest, schedulerConfig: unknown): number {
  if (upscale === undefined || upscale.strength === 0) return 0;
  const { steps, strength } = upscale;
  const { timesteps } = createScheduler(scheduler, schedulerConfig, steps);
  return timesteps.length - firstCallOf(scheduler, firstStep({ steps, init: { strength } }));
}

/** Times that an image of a request is decoded. */
export function decodesOf({ upscale }: GenerationRequest): number {
  return upscale === undefined || upscale.strength === 0 || upscale.method === 'latent' ? 1 : 2;
}

/** @param rgb row-major uint8 [height, width, 3] -> the same in the size of `upscale` */
export async function enlargeRgb(
  rgb: Uint8Array,
  size: ImageSize,
  { method, width, height }: RequestUpscale,
  upscalers: KeptFiles<Upscaler>,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const to = { width, height };
  if (typeof method === 'string') return resizeRgb(rgb, size, to);
  const upscaler = await upscalers.get(method);
  const { scale } = upscaler.config;
  const own = within(size, MAX_DRAWN_PIXELS / scale ** 2);
  const drawn = { width: own.width * scale, height: own.height * scale };
  const enlarged = await upscaler.upscale(await resizeRgb(rgb, size, own), own, signal);
  return resizeRgb(enlarged, drawn, to);
}

/** A size of the same shape with at most so many pixels. */
function within({ width, height }: ImageSize, pixels: number): ImageSize {
  const factor = Math.min(1, Math.sqrt(pixels / (width * height)));
  return { width: Math.max(1, Math.floor(width * factor)), height: Math.max(1, Math.floor(height * factor)) };
}

/** Control images in another size. */
export function resizeControls(
  controls: readonly RequestControl[] | undefined,
  from: ImageSize,
  to: ImageSize,
): Promise<readonly RequestControl[]> {
  return Promise.all(
    (controls ?? []).map(async (control) => ({ ...control, rgb: await resizeRgb(control.rgb, from, to) })),
  );
}

/**
 * Latents [C, h, w] in another size, bilinearly: torch's `interpolate(mode='bilinear')`, which takes the centres of pixels as their
 * places and does not smooth where it shrinks.
 */
export function resizeLatents(latents: Float32Array, from: ImageSize, to: ImageSize): Float32Array {
  const channels = latents.length / (from.width * from.height);
  const [columns, rows] = [places(from.width, to.width), places(from.height, to.height)];
  const resized = new Float32Array(channels * to.width * to.height);
  let at = 0;
  for (let channel = 0; channel < channels; channel += 1) {
    const start = channel * from.width * from.height;
    for (const [y0, y1, v] of rows) {
      for (const [x0, x1, u] of columns) {
        const value = (y: number, x: number) => latents[start + y * from.width + x] ?? 0;
        const upper = value(y0, x0) * (1 - u) + value(y0, x1) * u;
        const lower = value(y1, x0) * (1 - u) + value(y1, x1) * u;
        resized[at] = upper * (1 - v) + lower * v;
        at += 1;
      }
    }
  }
  return resized;
}

/** For each place of the result: its two neighbours and the share of the second. */
function places(from: number, to: number): readonly (readonly [number, number, number])[] {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const low = Math.min(from - 1, Math.floor(place));
    return [low, Math.min(from - 1, low + 1), place - low] as const;
  });
}
