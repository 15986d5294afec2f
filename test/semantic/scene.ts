/** Pixels back to words: which colours and which shape a picture of the demo model's world shows. */

/** The world's colours. */
export const COLOURS = {
  red: [220, 40, 40],
  green: [40, 170, 70],
  blue: [45, 90, 220],
  yellow: [245, 210, 50],
  purple: [140, 60, 190],
  orange: [245, 135, 35],
  white: [245, 245, 245],
  black: [20, 20, 24],
  cyan: [50, 200, 220],
  pink: [245, 130, 180],
} as const;
export type Colour = keyof typeof COLOURS;
type Rgb = readonly [number, number, number];

/** Signed distance from a shape of radius about 1 around the origin; y points down. Negative is inside. */
const DISTANCES = {
  circle: (x, y) => Math.hypot(x, y) - 0.9,
  ring: (x, y) => Math.abs(Math.hypot(x, y) - 0.72) - 0.2,
  square: (x, y) => Math.max(Math.abs(x), Math.abs(y)) - 0.78,
  diamond: (x, y) => Math.abs(x) + Math.abs(y) - 1.05,
  cross: (x, y) => {
    const [wide, narrow] = [0.95, 0.3];
    const [ax, ay] = [Math.abs(x), Math.abs(y)];
    return Math.min(Math.max(ax - wide, ay - narrow), Math.max(ax - narrow, ay - wide));
  },
  triangle: (x, y) => {
    const down = y + 0.15;
    return Math.max((Math.sqrt(3) * Math.abs(x) - down) / 2 - 0.5, down - 0.72);
  },
  star: (x, y) => {
    const half = Math.PI / 5;
    const turned = Math.atan2(x, -y) + half;
    const angle = turned - 2 * half * Math.floor(turned / (2 * half)) - half;
    return Math.hypot(x, y) - (0.42 + 0.55 * (1 - Math.abs(angle) / half) ** 1.5);
  },
  heart: (x, y) => {
    const [across, up] = [1.05 * Math.abs(x), 0.05 - 1.05 * y];
    return across ** 2 + (up - 0.45 * Math.sqrt(across)) ** 2 - 0.62;
  },
} as const satisfies Readonly<Record<string, (x: number, y: number) => number>>;
export type Shape = keyof typeof DISTANCES;

export const colours = Object.keys(COLOURS) as readonly Colour[];
export const shapes = Object.keys(DISTANCES) as readonly Shape[];

export interface Scene {
  readonly background: Colour;
  readonly foreground: Colour | undefined;
  readonly shape: Shape | undefined;
  /** Share of the pixels that have the foreground's colour. */
  readonly covered: number;
  /** Mean column of those pixels. */
  readonly centre: number;
}

/** Width of the frame that counts as background. */
const FRAME = 6;
/** Squared distance in RGB from the background beyond which a pixel belongs to the foreground. */
const FAR = 60 ** 2;
/** Shapes are compared on a grid of this many cells each way. */
const GRID = 32;

/**
 * The background is the median of the picture's frame; the foreground is the commonest colour of the pixels that differ from
 * it; the shape is the one that fits the foreground best within its bounding box (intersection over union).
 * @param rgb [size, size, 3]
 */
export function readScene(rgb: Uint8Array, size: number): Scene {
  const pixels = Array.from(
    { length: size * size },
    (_, i): Rgb => [rgb[3 * i] ?? 0, rgb[3 * i + 1] ?? 0, rgb[3 * i + 2] ?? 0],
  );
  const isFrame = (i: number) => [i % size, Math.floor(i / size)].some((at) => at < FRAME || at >= size - FRAME);
  const ground = medianOf(pixels.filter((_, i) => isFrame(i)));
  const background = nearest(ground);
  const foreground = commonest(
    pixels
      .filter((pixel) => distance(pixel, ground) > FAR)
      .map(nearest)
      .filter((name) => name !== background),
  );
  if (foreground === undefined) return { background, foreground, shape: undefined, covered: 0, centre: 0 };
  // A soft glow around a shape belongs to neither: what is nearer to the shape's own colour counts.
  const own = medianOf(pixels.filter((pixel) => distance(pixel, ground) > FAR && nearest(pixel) === foreground));
  const inside = pixels.map((pixel) => distance(pixel, own) < distance(pixel, ground));
  const columns = inside.flatMap((is, i) => (is ? [i % size] : []));
  const centre = columns.reduce((sum, x) => sum + x, 0) / columns.length;
  const covered = columns.length / pixels.length;
  return { background, foreground, shape: shapeOf(inside, size), covered, centre };
}

function shapeOf(mask: readonly boolean[], size: number): Shape | undefined {
  const at = mask.flatMap((is, i) => (is ? [[i % size, Math.floor(i / size)] as const] : []));
  if (at.length < GRID) return undefined;
  const [left, right] = inner(at.map(([x]) => x));
  const [top, bottom] = inner(at.map(([, y]) => y));
  const cell = (low: number, high: number, k: number) => Math.floor(low + ((k + 0.5) / GRID) * (high - low + 1));
  const seen = grid((i, j) => mask[cell(top, bottom, j) * size + cell(left, right, i)] ?? false);
  const scores = shapes.map((shape) => ({ shape, score: overlap(seen, TEMPLATES[shape]) }));
  return scores.reduce((best, each) => (each.score > best.score ? each : best)).shape;
}

/** Each shape within its own bounding box. */
const TEMPLATES = Object.fromEntries(
  shapes.map((shape) => {
    const steps = Array.from({ length: 241 }, (_, k) => (k - 120) / 100);
    const points = steps.flatMap((x) => steps.filter((y) => DISTANCES[shape](x, y) <= 0).map((y) => [x, y] as const));
    const [left, right] = bounds(points.map(([x]) => x));
    const [top, bottom] = bounds(points.map(([, y]) => y));
    const at = (low: number, high: number, k: number) => low + ((k + 0.5) / GRID) * (high - low);
    return [shape, grid((i, j) => DISTANCES[shape](at(left, right, i), at(top, bottom, j)) <= 0)];
  }),
) as Readonly<Record<Shape, readonly boolean[]>>;

function grid(isInside: (i: number, j: number) => boolean): readonly boolean[] {
  return Array.from({ length: GRID * GRID }, (_, k) => isInside(k % GRID, Math.floor(k / GRID)));
}

function overlap(a: readonly boolean[], b: readonly boolean[]): number {
  const both = a.filter((is, k) => is && b[k]).length;
  const any = a.filter((is, k) => is || b[k]).length;
  return both / any;
}

function bounds(values: readonly number[]): readonly [number, number] {
  return values.reduce<[number, number]>(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)],
    [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  );
}

/** Bounds without the outermost hundredth on each side, which is noise. */
function inner(values: readonly number[]): readonly [number, number] {
  const sorted = values.toSorted((a, b) => a - b);
  const cut = Math.floor(sorted.length / 200);
  return [sorted[cut] ?? 0, sorted[sorted.length - 1 - cut] ?? 0];
}

function nearest(pixel: Rgb): Colour {
  return colours.reduce((best, name) =>
    distance(COLOURS[name], pixel) < distance(COLOURS[best], pixel) ? name : best,
  );
}

function distance(a: Rgb, b: Rgb): number {
  return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2;
}

function medianOf(pixels: readonly Rgb[]): Rgb {
  const middle = ([0, 1, 2] as const).map((c) => pixels.map((pixel) => pixel[c]).toSorted((a, b) => a - b));
  const at = (c: 0 | 1 | 2) => middle[c]?.[Math.floor(pixels.length / 2)] ?? 0;
  return [at(0), at(1), at(2)];
}

function commonest(names: readonly Colour[]): Colour | undefined {
  const counts = new Map<Colour, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].toSorted(([, a], [, b]) => b - a)[0]?.[0];
}
