import type { Size } from './encode-image.js';
import { sharp } from './sharp.js';

/** An image in another size, by Lanczos' filter of 3 lobes. @param rgb row-major uint8 [height, width, 3] */
export async function resizeRgb(rgb: Uint8Array, from: Size, to: Size): Promise<Uint8Array> {
  if (from.width === to.width && from.height === to.height) return rgb;
  const resized = await sharp(rgb, {
    raw: { width: from.width, height: from.height, channels: 3 },
    limitInputPixels: false,
  })
    .resize(to.width, to.height, { fit: 'fill', kernel: 'lanczos3' })
    .raw()
    .toBuffer();
  return new Uint8Array(resized.buffer, resized.byteOffset, resized.length);
}
