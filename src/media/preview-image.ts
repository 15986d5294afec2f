import type { Size } from './encode-image.js';
import { sharp } from './sharp.js';

/** Longest side in pixels: enough for a thumbnail on a dense screen, in a few kilobytes. */
export const MAX_PREVIEW_SIDE = 256;
const PREVIEW_QUALITY = 70;

/** A small JPEG of interleaved uint8 [height, width, 3], to show while the image is generated. A smaller image keeps its size. */
export async function previewImage(rgb: Uint8Array, { width, height }: Size): Promise<Uint8Array> {
  return sharp(rgb, { raw: { width, height, channels: 3 } })
    .resize(MAX_PREVIEW_SIDE, MAX_PREVIEW_SIDE, { fit: 'inside', withoutEnlargement: true })
    .jpeg({ quality: PREVIEW_QUALITY })
    .toBuffer();
}
