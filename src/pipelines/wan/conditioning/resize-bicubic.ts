/** Coefficient of Catmull-Rom splines. */
const A = -0.5;
/** Source pixels at each side of a target pixel's middle. */
const SUPPORT = 2;
/** Fractional bits of a weight: eight of a pixel, two to spare. */
const PRECISION = 22;

interface RgbImage {
  readonly width: number;
  readonly height: number;
  /** Row-major uint8 [height, width, 3]. */
  readonly rgb: Uint8Array;
}

/**
 * An image at another size, bit for bit as Pillow's bicubic resampling makes it: rows first, then columns, each weighted in
 * fixed point and rounded to 8 bits. Image encoders were trained on images that were made smaller in this way.
 *
 * https://github.com/python-pillow/Pillow/blob/11.0.0/src/libImaging/Resample.c#L183
 */
export function resizeBicubic({ width, height, rgb }: RgbImage, to: Omit<RgbImage, 'rgb'>): Uint8Array {
  const row = 3 * to.width;
  const rows = resample(rgb, { from: width, to: to.width, step: 3, lines: height, apart: [3 * width, row] });
  return resample(rows, { from: height, to: to.height, step: row, lines: to.width, apart: [3, 3] });
}

/** Lines of pixels that are all made longer or shorter. */
interface Pass {
  readonly from: number;
  readonly to: number;
  /** Values from a pixel of a line to the next. */
  readonly step: number;
  readonly lines: number;
  /** Values from a line to the next, in source and target. */
  readonly apart: readonly [source: number, target: number];
}

function resample(source: Uint8Array, { from, to, step, lines, apart }: Pass): Uint8Array {
  if (from === to) return source;
  const taps = tapsOf(from, to);
  const target = new Uint8ClampedArray((source.length / from) * to);
  for (let line = 0; line < lines; line += 1) {
    for (const [i, { first, weights }] of taps.entries()) {
      for (let colour = 0; colour < 3; colour += 1) {
        let at = line * apart[0] + first * step + colour;
        let sum = 1 << (PRECISION - 1);
        for (const weight of weights) {
          sum += weight * (source[at] ?? 0);
          at += step;
        }
        target[line * apart[1] + i * step + colour] = sum >> PRECISION;
      }
    }
  }
  return new Uint8Array(target.buffer);
}

interface Taps {
  /** The first source pixel that counts. */
  readonly first: number;
  /** In fixed point. */
  readonly weights: readonly number[];
}

function tapsOf(from: number, to: number): readonly Taps[] {
  const scale = from / to;
  // Smaller images are made of wider neighbourhoods; larger ones are not made of narrower ones.
  const spread = Math.max(1, scale);
  const reach = SUPPORT * spread;
  return Array.from({ length: to }, (_, i) => {
    const middle = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(middle - reach + 0.5));
    const end = Math.min(from, Math.trunc(middle + reach + 0.5));
    const raw = Array.from({ length: end - first }, (__, k) => cubic((first + k - middle + 0.5) / spread));
    const total = raw.reduce((sum, weight) => sum + weight, 0);
    const weights = raw.map((weight) => {
      const fixed = (weight / total) * 2 ** PRECISION;
      return Math.trunc(fixed + (fixed < 0 ? -0.5 : 0.5));
    });
    return { first, weights };
  });
}

function cubic(distance: number): number {
  const x = Math.abs(distance);
  if (x < 1) return ((A + 2) * x - (A + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * A : 0;
}
