/** Inpainting of the masked part alone: it is drawn at the full size of the image, and pasted back smaller. */

import type { PlaneSize, Tile } from '../../std/plane.js';
import type { InitImage } from '../pipeline.js';
import { copyPixels, cutPixels, type Pixels } from './pixel-regions.js';
import { resizeLanczos } from './resize-pillow.js';

/**
 * The part of an image that holds everything that is drawn anew, with pixels around it, of the image's shape as far as there is room.
 * Undefined for a mask that draws nothing.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/image_processor.py#L318
 * @param mask uint8 [height, width]
 * @param padding pixels around what is drawn
 */
export function maskedRegion(mask: Uint8Array, { width, height }: PlaneSize, padding: number): Tile | undefined {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (const [i, value] of mask.entries()) {
    if (value === 0) continue;
    const [x, y] = [i % width, Math.floor(i / width)];
    [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
  }
  if (right === 0) return undefined;
  const across = { from: Math.max(left - padding, 0), to: Math.min(right + padding, width) };
  const down = { from: Math.max(top - padding, 0), to: Math.min(bottom + padding, height) };
  const shape = width / height;
  const [w, h] = [across.to - across.from, down.to - down.from];
  const [x, y] = w / h > shape ? [across, widened(down, w / shape, height)] : [widened(across, h * shape, width), down];
  return { x: x.from, y: y.from, width: x.to - x.from, height: y.to - y.from };
}

interface Range {
  readonly from: number;
  readonly to: number;
}

/** A range made longer at both ends, and moved to where there is room. */
function widened({ from, to }: Range, length: number, limit: number): Range {
  const more = Math.trunc(length - (to - from));
  const half = Math.floor(more / 2);
  let [start, end] = [from - half, to + more - half];
  if (end >= limit) [start, end] = [start - (end - limit), limit];
  if (start < 0) [start, end] = [0, end - start];
  return { from: start, to: Math.min(end, limit) };
}

/** An image to start from and its mask, cut to a region and at the full size again. The mask is black and white there. */
export function cropInit(init: InitImage & { readonly mask: Uint8Array }, size: PlaneSize, region: Tile): InitImage {
  const { rgb, mask, strength } = init;
  const drawn = cropPixels(mask, size, region);
  return {
    strength,
    rgb: cropPixels(rgb, size, region),
    mask: drawn.map((value) => (value >= 128 ? 255 : 0)),
  };
}

/** An image cut to a region and at the full size again. @param values uint8 [height, width, C] */
export function cropPixels(values: Uint8Array, size: PlaneSize, region: Tile): Uint8Array {
  return fillSize(cutPixels({ width: size.width, height: size.height, values }, region), size);
}

/** The image with what was drawn of a region in its place, smaller. */
export function pasteRegion(drawn: Uint8Array, whole: Uint8Array, size: PlaneSize, region: Tile): Uint8Array {
  const { width, height } = size;
  const values = coverSize({ width, height, values: drawn }, region);
  const part = { width: region.width, height: region.height, values };
  const pasted = { width, height, values: Uint8Array.from(whole) };
  copyPixels(part, { ...part, x: 0, y: 0 }, pasted, region);
  return pasted.values;
}

/** Scaled until it fits into a size, in its middle; its edges are drawn out to the size's. */
function fillSize(image: Pixels, to: PlaneSize): Uint8Array {
  const isWide = to.width / to.height < image.width / image.height;
  const inner = {
    width: isWide ? to.width : Math.floor((image.width * to.height) / image.height),
    height: isWide ? Math.floor((image.height * to.width) / image.width) : to.height,
  };
  return moved({ ...inner, values: resizeLanczos(image, inner) }, to);
}

/** Scaled until it covers a size, and cropped evenly. */
function coverSize(image: Pixels, to: PlaneSize): Uint8Array {
  const isWide = to.width / to.height > image.width / image.height;
  const outer = {
    width: isWide ? to.width : Math.floor((image.width * to.height) / image.height),
    height: isWide ? Math.floor((image.height * to.width) / image.width) : to.height,
  };
  return moved({ ...outer, values: resizeLanczos(image, outer) }, to);
}

/** In the middle of a size: cropped, or its edges repeated. */
function moved({ width, height, values }: Pixels, to: PlaneSize): Uint8Array {
  const channels = values.length / (width * height);
  const [left, top] = [to.width, to.height].map(
    (side, i) => Math.floor(side / 2) - Math.floor(([width, height][i] as number) / 2),
  ) as [number, number];
  const result = new Uint8Array(channels * to.width * to.height);
  for (let y = 0; y < to.height; y += 1) {
    const line = Math.min(Math.max(y - top, 0), height - 1) * width;
    for (let x = 0; x < to.width; x += 1) {
      const from = channels * (line + Math.min(Math.max(x - left, 0), width - 1));
      const at = channels * (y * to.width + x);
      for (let c = 0; c < channels; c += 1) result[at + c] = values[from + c] ?? 0;
    }
  }
  return result;
}
