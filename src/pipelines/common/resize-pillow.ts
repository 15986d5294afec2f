import type { PlaneSize } from '../../std/plane.js';
import type { Pixels } from './pixel-regions.js';

/** Coefficient of Catmull-Rom splines. */
const A = -0.5;
/** Fractional bits of a weight: eight of a pixel, two to spare. */
const PRECISION = 22;

/** A filter: what a source pixel counts at a distance from a target pixel's middle, and how far it reaches. */
interface Filter {
  readonly support: number;
  weight(distance: number): number;
}

const BICUBIC: Filter = { support: 2, weight: cubic };
const LANCZOS: Filter = { support: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) };

/** The same at another size, by Pillow's bicubic filter. Image encoders were trained on images that were made smaller in this way. */
export function resizeBicubic(image: Pixels, to: PlaneSize): Uint8Array {
  return resize(image, to, BICUBIC);
}

/** The same by Pillow's Lanczos filter, with which diffusers resizes images and masks. */
export function resizeLanczos(image: Pixels, to: PlaneSize): Uint8Array {
  return resize(image, to, LANCZOS);
}

/**
 * An image at another size, bit for bit as Pillow makes it: rows first, then columns, each weighted in fixed point and rounded to 8
 * bits.
 *
 * https://github.com/python-pillow/Pillow/blob/11.0.0/src/libImaging/Resample.c#L183
 */
function resize({ width, height, values }: Pixels, to: PlaneSize, filter: Filter): Uint8Array {
  const channels = values.length / (width * height);
  const row = channels * to.width;
  const across = { from: width, to: to.width, step: channels, lines: height, apart: [channels * width, row] } as const;
  const rows = resample(values, { ...across, channels, filter });
  const down = { from: height, to: to.height, step: row, lines: to.width, apart: [channels, channels] } as const;
  return resample(rows, { ...down, channels, filter });
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
  readonly channels: number;
  readonly filter: Filter;
}

function resample(source: Uint8Array, { from, to, step, lines, apart, channels, filter }: Pass): Uint8Array {
  if (from === to) return source;
  const taps = tapsOf(from, to, filter);
  const target = new Uint8ClampedArray((source.length / from) * to);
  for (let line = 0; line < lines; line += 1) {
    for (const [i, { first, weights }] of taps.entries()) {
      for (let colour = 0; colour < channels; colour += 1) {
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

function tapsOf(from: number, to: number, { support, weight: weightAt }: Filter): readonly Taps[] {
  const scale = from / to;
  // Smaller images are made of wider neighbourhoods; larger ones are not made of narrower ones.
  const spread = Math.max(1, scale);
  const reach = support * spread;
  return Array.from({ length: to }, (_, i) => {
    const middle = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(middle - reach + 0.5));
    const end = Math.min(from, Math.trunc(middle + reach + 0.5));
    const raw = Array.from({ length: end - first }, (__, k) => weightAt((first + k - middle + 0.5) / spread));
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

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}
