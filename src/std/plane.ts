/** In latents or in pixels. */
export interface PlaneSize {
  readonly width: number;
  readonly height: number;
}

/** A part of a plane. */
export interface Tile extends PlaneSize {
  readonly x: number;
  readonly y: number;
}

/** Starts of `count` pieces along a side, evenly spread from its one end to the other. */
export function spread(length: number, piece: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => Math.round((i * (length - piece)) / Math.max(1, count - 1)));
}

/** The same tile where every side is so many times as long. */
export function scaled({ x, y, width, height }: Tile, by: number): Tile {
  return { x: x * by, y: y * by, width: width * by, height: height * by };
}
