/**
 * How the decoder works on a part of its frames and gives, pixel for pixel, what it gives for whole ones. Its one layer that sees a
 * frame as a whole is the attention of the middle block, at the size of the latents, where a frame takes little memory. All frames go
 * through it whole. After it come convolutions and norms of single pixels: a part needs from beside it as many pixels as the
 * convolutions that are left look out, and the fewer are left, the fewer. So the frames are cut after the middle block and before each
 * doubling of their size.
 */
import type { VaeConfig } from './config.js';

/** The top and left of frames, or their bottom and right. */
export type CutSide = 'before' | 'after';

/** Input of a cut: int64 [2], the rows and columns that are left out. */
export function cutName(i: number, side: CutSide): string {
  return `cut.${i}.${side}`;
}

export interface Cut {
  /** Pixels to a latent where it is made, along a side. */
  readonly scale: number;
  /** Pixels around a part that it keeps. */
  readonly margin: number;
}

/** Cuts in the order in which the decoder makes them: after the middle block, then before each doubling of the size. */
export function decoderCuts({ dim_mult: widths, num_res_blocks: blocks }: VaeConfig): readonly Cut[] {
  // Each block has as many residual blocks and one more, of two convolutions each; a convolution of 3x3 looks out one pixel.
  const reach = 2 * (blocks + 1);
  const cuts: Cut[] = [];
  // The last convolution.
  let needed = 1 + reach;
  for (let i = widths.length - 2; i >= 0; i -= 1) {
    // The convolution after the doubling.
    const margin = Math.ceil((needed + 1) / 2);
    cuts.unshift({ scale: 2 ** i, margin });
    needed = margin + reach;
  }
  return [{ scale: 1, margin: needed }, ...cuts];
}
