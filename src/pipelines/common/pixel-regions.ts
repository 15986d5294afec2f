/** Parts of images: row-major uint8 [height, width, C]. */

import type { PlaneSize, Tile } from '../../std/plane.js';

export interface Pixels extends PlaneSize {
  /** Row-major uint8 [height, width, C]. */
  readonly values: Uint8Array;
}

/** The pixels of a region. */
export function cutPixels(image: Pixels, region: Tile): Pixels {
  const channels = image.values.length / (image.width * image.height);
  const values = new Uint8Array(channels * region.width * region.height);
  const part = { width: region.width, height: region.height, values };
  copyPixels(image, region, part, { x: 0, y: 0 });
  return part;
}

/** Copies the pixels of a region of one image to a place in another one of as many channels. */
export function copyPixels(
  source: Pixels,
  { x, y, width, height }: Tile,
  target: Pixels,
  to: Pick<Tile, 'x' | 'y'>,
): void {
  const channels = source.values.length / (source.width * source.height);
  for (let row = 0; row < height; row += 1) {
    const from = channels * ((y + row) * source.width + x);
    target.values.set(
      source.values.subarray(from, from + channels * width),
      channels * ((to.y + row) * target.width + to.x),
    );
  }
}
