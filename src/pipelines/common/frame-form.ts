import type { PlaneSize, Tile } from '../../std/plane.js';
import { pasteRgb, rgbFromImage } from './rgb-image.js';
import { pasteTile } from './tiles.js';

/** What becomes of decoded frames, whole or in parts. Values are planar float32 [3, h, w] of -1 to 1. */
export interface FrameForm<T> {
  fromWhole(values: Float32Array, size: PlaneSize): T;
  /** A frame of which all parts are missing. */
  blank(size: PlaneSize): T;
  /** @param values of all that lies in `around`, of which `part` is put into the frame */
  paste(frame: T, size: PlaneSize, values: Float32Array, around: Tile, part: Tile): void;
}

/** Planar float32 [3, H, W] of -1 to 1: as they are decoded. */
export const planarFrames: FrameForm<Float32Array> = {
  fromWhole: (values) => values,
  blank: ({ width, height }) => new Float32Array(3 * width * height),
  paste: pasteTile,
};

/** Interleaved uint8 [H, W, 3]: a quarter of the memory, where many frames wait for their last part. */
export const rgbFrames: FrameForm<Uint8Array> = {
  fromWhole: rgbFromImage,
  blank: ({ width, height }) => new Uint8Array(3 * width * height),
  paste: pasteRgb,
};
