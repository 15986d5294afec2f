import type { PlaneSize, Tile } from '../../std/plane.js';
import { copyPixels } from './pixel-regions.js';

/**
 * Planar float32 [3, H, W] of -1 to 1, to interleaved uint8 [H, W, 3]: halved and shifted to 0 to 1, clamped, times 255,
 * rounded half to even as numpy does.
 */
export function rgbFromImage(image: Float32Array, { width, height }: PlaneSize): Uint8Array {
  const area = width * height;
  const rgb = new Uint8ClampedArray(area * 3);
  for (let channel = 0; channel < 3; channel += 1) {
    for (let i = 0; i < area; i += 1) {
      // Uint8ClampedArray clamps, and rounds half to even.
      rgb[i * 3 + channel] = Math.fround((image[channel * area + i] ?? 0) * 0.5 + 0.5) * 255;
    }
  }
  return new Uint8Array(rgb.buffer);
}

/**
 * Puts a part of an image into a larger one.
 *
 * @param rgb uint8 [height, width, 3] of the larger one
 * @param values planar float32 [3, h, w] of -1 to 1, of all that lies in `around`
 * @param part of the larger one, inside of `around`
 */
export function pasteRgb(rgb: Uint8Array, size: PlaneSize, values: Float32Array, around: Tile, part: Tile): void {
  const inside = { ...part, x: part.x - around.x, y: part.y - around.y };
  copyPixels({ ...around, values: rgbFromImage(values, around) }, inside, { ...size, values: rgb }, part);
}

/** Interleaved uint8 [H, W, 3] to planar float32 [3, H, W] of -1 to 1. */
export function imageFromRgb(rgb: Uint8Array, { width, height }: PlaneSize): Float32Array {
  const area = width * height;
  const image = new Float32Array(area * 3);
  for (let channel = 0; channel < 3; channel += 1) {
    for (let i = 0; i < area; i += 1) {
      image[channel * area + i] = Math.fround(2 * Math.fround((rgb[i * 3 + channel] ?? 0) / 255)) - 1;
    }
  }
  return image;
}
