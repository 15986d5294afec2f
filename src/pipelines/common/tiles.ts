/**
 * Decoding and encoding in overlapping tiles, whose seams are blended linearly, as diffusers does:
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/autoencoders/autoencoder_kl.py#L330
 */
import { type PlaneSize, spread, type Tile } from '../../std/plane.js';

/** Sides of tiles, in latents, from the one that takes most memory. */
const SIDES: readonly number[] = [128, 64, 32, 16];
/** Part of a tile that the next one covers as well. */
const OVERLAP = 1 / 4;

const COLOURS = 3;

/** Sides that split latents of a size, the largest first. */
export function tileSides({ width, height }: PlaneSize): readonly number[] {
  return SIDES.filter((side) => side < Math.max(width, height));
}

/** Tiles that cover latents of a size, row by row. All have one size, so a device prepares one. */
export function tilesOf({ width, height }: PlaneSize, side: number): readonly Tile[] {
  const [tileWidth, tileHeight] = [Math.min(side, width), Math.min(side, height)];
  return starts(height, tileHeight).flatMap((y) =>
    starts(width, tileWidth).map((x) => ({ x, y, width: tileWidth, height: tileHeight })),
  );
}

/** Evenly spread starts, so that no two tiles overlap by less than `OVERLAP`. */
function starts(length: number, tile: number): readonly number[] {
  if (tile >= length) return [0];
  return spread(length, tile, 1 + Math.ceil((length - tile) / (tile - Math.ceil(tile * OVERLAP))));
}

/** A tile of planar values [C, height, width]. */
export function cutTile(values: Float32Array, { width, height }: PlaneSize, tile: Tile): Float32Array {
  const channels = values.length / (width * height);
  const cut = new Float32Array(channels * tile.width * tile.height);
  for (let row = 0; row < channels * tile.height; row += 1) {
    const [channel, line] = [Math.floor(row / tile.height), row % tile.height];
    const from = (channel * height + tile.y + line) * width + tile.x;
    cut.set(values.subarray(from, from + tile.width), row * tile.width);
  }
  return cut;
}

/**
 * Puts a part of planar values into a plane [C, height, width].
 *
 * @param values [C, h, w] of all that lies in `around`
 * @param part of the plane, inside of `around`
 */
export function pasteTile(
  plane: Float32Array,
  { width, height }: PlaneSize,
  values: Float32Array,
  around: Tile,
  part: Tile,
): void {
  const channels = plane.length / (width * height);
  for (let row = 0; row < channels * part.height; row += 1) {
    const [channel, line] = [Math.floor(row / part.height), part.y + (row % part.height)];
    const from = (channel * around.height + line - around.y) * around.width + part.x - around.x;
    plane.set(values.subarray(from, from + part.width), (channel * height + line) * width + part.x);
  }
}

/** How an image is split: its tiles, and the weights by which their pixels are put together. */
export class TileLayout {
  readonly tiles: readonly Tile[];
  /** Of the whole image, in pixels. */
  readonly size: PlaneSize;
  /** Pixels to a latent, along a side. */
  readonly scale: number;
  /** Sum of the weights at each pixel. */
  readonly weights: Float32Array;

  /** @param side of a tile, in latents */
  constructor(size: PlaneSize, scale: number, side: number) {
    this.size = size;
    this.scale = scale;
    this.tiles = tilesOf({ width: size.width / scale, height: size.height / scale }, side);
    this.weights = new Float32Array(size.width * size.height);
    for (const tile of this.tiles) {
      this.forEachPixel(tile, (at, _, weight) => {
        this.weights[at] = (this.weights[at] ?? 0) + weight;
      });
    }
  }

  /** Visits the pixels of a tile: their places in the image and in the tile, and their weights. */
  forEachPixel(tile: Tile, visit: (at: number, from: number, weight: number) => void): void {
    const { scale } = this;
    const { width, height } = this.size;
    const [x, y, tileWidth, tileHeight] = [tile.x * scale, tile.y * scale, tile.width * scale, tile.height * scale];
    const across = ramp(tileWidth, x > 0, x + tileWidth < width);
    const down = ramp(tileHeight, y > 0, y + tileHeight < height);
    for (let row = 0; row < tileHeight; row += 1) {
      for (let column = 0; column < tileWidth; column += 1) {
        const weight = (down[row] ?? 0) * (across[column] ?? 0);
        visit((y + row) * width + x + column, row * tileWidth + column, weight);
      }
    }
  }
}

/** Puts the tiles of one image together, or of its latents: planar float32 [C, height, width]. */
export class TileBlend {
  readonly #layout: TileLayout;
  readonly #channels: number;
  readonly #sums: Float32Array;

  /** @param channels Omitted: the three of an image */
  constructor(layout: TileLayout, channels = COLOURS) {
    this.#layout = layout;
    this.#channels = channels;
    this.#sums = new Float32Array(channels * layout.weights.length);
  }

  /** @param values planar float32 [C, h, w] of the tile's pixels */
  add(tile: Tile, values: Float32Array): void {
    const area = this.#layout.weights.length;
    const channels = this.#channels;
    const tileArea = values.length / channels;
    this.#layout.forEachPixel(tile, (at, from, weight) => {
      for (let channel = 0; channel < channels; channel += 1) {
        const to = channel * area + at;
        this.#sums[to] = (this.#sums[to] ?? 0) + weight * (values[channel * tileArea + from] ?? 0);
      }
    });
  }

  /** The image. Call it when every tile was added. */
  image(): Float32Array {
    const { weights } = this.#layout;
    return this.#sums.map((sum, i) => sum / (weights[i % weights.length] ?? 1));
  }
}

/** Weights along a side of a tile: they rise from and fall to its inner edges, over the part that is covered twice. */
function ramp(length: number, rises: boolean, falls: boolean): Float32Array {
  const reach = length * OVERLAP;
  return Float32Array.from({ length }, (_, i) => {
    const before = rises ? (i + 0.5) / reach : 1;
    const after = falls ? (length - i - 0.5) / reach : 1;
    return Math.min(1, before, after);
  });
}
