import type { Size } from '../../src/media/encode-image.js';

/** Red grows to the right, green downwards, blue along the diagonal: [height, width, 3], no two corners alike. */
export function gradient({ width, height }: Size): Uint8Array {
  return Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const x = Math.floor(i / 3) % width;
    const y = Math.floor(i / 3 / width);
    return [(255 * x) / width, (255 * y) / height, (255 * (x + y)) / (width + height)][i % 3] ?? 0;
  });
}
