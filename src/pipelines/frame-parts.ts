/** Parts in which a network works through large frames: a network that gives from each of them what it gives from the whole. */
import { type PlaneSize, spread, type Tile } from '../std/plane.js';

/** What decides on the parts of a network's frames. */
export interface FrameParts {
  /** Frames are cut at multiples of so many pixels. */
  readonly unit: number;
  /** Pixels around a part that are computed with it, where a run takes most memory. */
  readonly margin: number;
  /** Most pixels of a part, as long as frames are not so large that their parts were too many. */
  readonly mostPixels: number;
}

/** Most pixels of a part: see docs/reference/graph.md#parts-of-frames. */
const MOST_PIXELS = 400 ** 2;
/** The same on a large card, which is faster with whole frames: parts leave it too little work in each kernel. */
const MOST_PIXELS_ON_LARGE = 1024 ** 2;
/** Memory of a large card. The largest of the released models takes 92 GB on it: image-to-video 14B at 1280x720. */
const LARGE_CARD_BYTES = 96e9;
/** Most parts of a frame, as long as memory does not run out: each computes anew what sees a frame as a whole. */
const MOST_PARTS = 8;
/** Fewest pixels of a part: in smaller ones, most of what is computed is margin. */
const FEWEST_PIXELS = 128 ** 2;

/** What the margins of a part cost on each axis, in units: their mean, weighted by what is computed in them. */
const MARGIN = 4;
/** What each part costs of a whole frame: what is computed of a frame as a whole is computed for each of them. */
const SHARED = 1 / 40;

/** Most pixels of a part. @param cardBytes memory of the card that runs the network. Omitted: not known */
export function mostPixelsOn(cardBytes = 0): number {
  return cardBytes >= LARGE_CARD_BYTES ? MOST_PIXELS_ON_LARGE : MOST_PIXELS;
}

/**
 * Ways to cut frames of a size, in units, each of more parts than the one before: the usual one first, then those for when memory runs
 * out.
 */
export function layoutsOf(
  size: PlaneSize,
  { unit, mostPixels }: Pick<FrameParts, 'unit' | 'mostPixels'>,
): readonly (readonly Tile[])[] {
  const layouts: (readonly Tile[])[] = [];
  const usual = Math.max(mostPixels, (unit ** 2 * size.width * size.height) / MOST_PARTS);
  for (let most = usual; most >= FEWEST_PIXELS; most /= 2) {
    const parts = partsOf(size, Math.max(1, most / unit ** 2));
    if (parts.length > (layouts.at(-1)?.length ?? 0)) layouts.push(parts);
  }
  return layouts;
}

/** Parts of equal size, none larger than `most`, that cover a plane at the least cost. All in units. */
export function partsOf({ width, height }: PlaneSize, most: number): readonly Tile[] {
  const layouts = Array.from({ length: height }, (_, i) => {
    const tall = Math.ceil(height / (i + 1));
    const across = Math.ceil(width / Math.max(1, Math.floor(most / tall)));
    return { across, down: Math.ceil(height / tall), part: { width: Math.ceil(width / across), height: tall } };
  });
  const cost = ({ across, down, part }: (typeof layouts)[number]) =>
    across * down * ((part.width + MARGIN) * (part.height + MARGIN) + SHARED * width * height);
  const { across, down, part } = layouts
    .filter(({ part }) => part.width * part.height <= most)
    .reduce((best, layout) => (cost(layout) < cost(best) ? layout : best));
  return spread(height, part.height, down).flatMap((y) =>
    spread(width, part.width, across).map((x) => ({ x, y, ...part })),
  );
}

/**
 * A part of frames of a size with its margins, in pixels: all of a layout are of one size.
 * @param isShort of the smallest parts, as where memory is short
 */
export function partSize(frame: PlaneSize, frameParts: FrameParts, isShort = false): PlaneSize {
  const { unit, margin } = frameParts;
  const size = { width: frame.width / unit, height: frame.height / unit };
  const [part = size] = layoutsOf(size, frameParts).at(isShort ? -1 : 0) ?? [];
  const grown = (length: number, whole: number) => Math.min(whole, length * unit + 2 * margin);
  return { width: grown(part.width, frame.width), height: grown(part.height, frame.height) };
}
