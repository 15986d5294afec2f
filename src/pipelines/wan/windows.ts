/** How the decoder computes a part of its frames: see model/decoder-cuts.ts. */
import type { Feed } from '../../runtime/session.js';
import type { PlaneSize, Tile } from '../../std/plane.js';
import { type FrameParts, layoutsOf } from '../frame-parts.js';
import type { VaeConfig } from './model/config.js';
import { cutName, decoderCuts } from './model/decoder-cuts.js';
import { pixelsPerLatent } from './model/vae.js';

/** The parts that the decoder's frames are cut into. @param mostPixels of a part */
export function decoderParts(config: VaeConfig, mostPixels: number): FrameParts {
  const unit = pixelsPerLatent(config);
  // Most memory is taken at the size of the last cuts.
  const [cut = { scale: 1, margin: 0 }] = decoderCuts(config).slice(-2);
  return { unit, margin: (cut.margin * unit) / cut.scale, mostPixels };
}

/** What the decoder is given to compute one part, and what comes of it. */
export interface Window {
  /** Inputs of the graph that cut it out. */
  readonly feeds: Readonly<Record<string, Feed>>;
  /** Run-time dimensions of the graph. */
  readonly sizes: Readonly<Record<string, number>>;
  /** The frames that come out: their place in the whole ones, in pixels. */
  readonly frame: Tile;
}

/** @param whole size of the latents, of which `part` is one */
export function windowOf(part: Tile, whole: PlaneSize, config: VaeConfig): Window {
  const rows = spansOf(part.y, part.height, whole.height, config);
  const columns = spansOf(part.x, part.width, whole.width, config);
  const feeds: Record<string, Feed> = {};
  const sizes: Record<string, number> = { H: whole.height, W: whole.width };
  for (const [i, row] of rows.cuts.entries()) {
    const column = columns.cuts[i] as SpanCut;
    for (const side of ['before', 'after'] as const) {
      const data = BigInt64Array.of(BigInt(row[side]), BigInt(column[side]));
      feeds[cutName(i, side)] = { data, shape: [2] };
    }
    Object.assign(sizes, { [`H${i}`]: row.length, [`W${i}`]: column.length });
  }
  const [y, x] = [rows.start, columns.start];
  return { feeds, sizes, frame: { x, y, width: columns.length, height: rows.length } };
}

/** The same of whole frames. @param whole size of the latents */
export function wholeWindow(whole: PlaneSize, config: VaeConfig): Window {
  return windowOf({ ...whole, x: 0, y: 0 }, whole, config);
}

/** Run-time dimensions of the decoder where the first cut leaves nothing. @param whole size of the latents */
export function emptyWindow({ width, height }: PlaneSize, config: VaeConfig): Window['sizes'] {
  return Object.assign({ H: height, W: width }, ...decoderCuts(config).map((_, i) => ({ [`H${i}`]: 0, [`W${i}`]: 0 })));
}

/**
 * Run-time dimensions of the decoder for a part of frames: all of a layout are of one size.
 * @param whole size of the latents
 * @param parts `decoderParts` of the same VAE
 * @param isShort in the smallest parts, as where memory is short
 */
export function partWindow(whole: PlaneSize, config: VaeConfig, parts: FrameParts, isShort = false): Window['sizes'] {
  const [part = { ...whole, x: 0, y: 0 }] = layoutsOf(whole, parts).at(isShort ? -1 : 0) ?? [];
  return windowOf(part, whole, config).sizes;
}

/** A cut along one axis: what is left out at its ends, and what is left, in pixels of where it is made. */
interface SpanCut {
  readonly before: number;
  readonly after: number;
  readonly length: number;
}

/**
 * The cuts along one axis around `length` latents from `from` on, and the pixels that come out in the end. What a part at the edge does not
 * need beyond it, it keeps on its other side: so all parts of a layout are of one size, which a device prepares for once.
 */
function spansOf(from: number, length: number, whole: number, config: VaeConfig) {
  const cuts: SpanCut[] = [];
  let [start, end, last] = [0, whole, 1];
  const growTo = (next: number) => {
    const by = next / last;
    [start, end, last] = [start * by, end * by, next];
  };
  for (const cut of decoderCuts(config)) {
    growTo(cut.scale);
    const kept = Math.min(whole * cut.scale, length * cut.scale + 2 * cut.margin);
    const first = Math.min(Math.max(0, from * cut.scale - cut.margin), whole * cut.scale - kept);
    cuts.push({ before: first - start, after: end - (first + kept), length: kept });
    [start, end] = [first, first + kept];
  }
  growTo(pixelsPerLatent(config));
  return { cuts, start, length: end - start };
}
