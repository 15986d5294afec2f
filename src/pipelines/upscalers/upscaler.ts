import { InferenceError } from '../../errors.js';
import type { HalfType } from '../../graph/dialect.js';
import { outputOf } from '../../runtime/session.js';
import { type PlaneSize, scaled, type Tile } from '../../std/plane.js';
import { shown } from '../../std/shown.js';
import type { WeightFiles } from '../../weights/weight-files.js';
import { buildNetworks, type NetworkBuilder, planWeights, type WeightPlan } from '../common/build-networks.js';
import type { NetworkOpener } from '../common/network-opener.js';
import { copyPixels, cutPixels } from '../common/pixel-regions.js';
import { imageFromRgb, rgbFromImage } from '../common/rgb-image.js';
import { type OnDemandSession, SessionGroup } from '../common/session-group.js';
import { cutTile } from '../common/tiles.js';
import { buildUpscaler } from './networks.js';
import { LARGEST_TILE, readUpscalerFile, type UpscalerConfig } from './upscaler-file.js';

/** Sides of tiles, in pixels of the image; smaller ones where memory runs out. */
const TILES = [LARGEST_TILE, 128, 64] as const;
/** Pixels around what is kept of a tile: the network sees no edge there. Real-ESRGAN's own program takes 10. */
const PAD = 16;

const HALVES: readonly HalfType[] = ['f16', 'bf16'];

/** An upscaler, which opens with the first run. Idle ones are released where memory runs out. */
export class Upscaler {
  readonly config: UpscalerConfig;
  readonly #group: SessionGroup;
  readonly #session: OnDemandSession;

  private constructor(config: UpscalerConfig, group: SessionGroup, session: OnDemandSession) {
    this.config = config;
    this.#group = group;
    this.#session = session;
  }

  /** Reads its header and builds its graph. @throws InferenceError that says what is wrong with the file */
  static async open(path: string, opener: NetworkOpener): Promise<Upscaler> {
    const { config, files } = await readUpscalerFile(path);
    const source = { path, layout: 'original', readWeights: async (): Promise<WeightFiles> => files } as const;
    const { dialectsOf } = opener.backend;
    const { upscaler } = await buildNetworks(source, { model: 'upscaler', table: tableOf(config), dialectsOf });
    const [spare] = upscaler.weights.spare;
    // What an unknown layer adds would be missing without a word.
    if (spare !== undefined)
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `${path} has ${shown(spare)}, which ${config.kind} networks do not have`,
      );
    const group = new SessionGroup(opener);
    return new Upscaler(config, group, group.onDemand(upscaler));
  }

  /** In tiles. @param rgb row-major uint8 [height, width, 3] -> the same, `scale` times as high and wide */
  upscale(rgb: Uint8Array, size: PlaneSize, signal?: AbortSignal): Promise<Uint8Array> {
    const { scale } = this.config;
    const attempts = TILES.map((side, i) => ({
      ...(i > 0 && { measure: `upscaled_in_tiles_of_${side}_pixels` }),
      run: () => this.#inTiles(rgb, size, side, signal),
    }));
    return this.#group.relief.shrink(`upscale ${size.width}x${size.height} by ${scale}`, attempts);
  }

  /** The result is kept in bytes: at 4096x4096 it has 50 MB, and in float32 four times as much. */
  async #inTiles(rgb: Uint8Array, size: PlaneSize, side: number, signal?: AbortSignal): Promise<Uint8Array> {
    const { scale } = this.config;
    const image = { width: size.width, height: size.height, values: rgb };
    const full = scaled({ x: 0, y: 0, width: size.width, height: size.height }, scale);
    const result = { ...full, values: new Uint8Array(3 * full.width * full.height) };
    for (const { tile, kept } of paddedTiles(size, side)) {
      signal?.throwIfAborted();
      const { values } = cutPixels(image, tile);
      const large = scaled(tile, scale);
      const drawn = rgbFromImage(await this.draw(imageFromRgb(values, tile), tile, signal), large);
      const inside = scaled({ ...kept, x: kept.x - tile.x, y: kept.y - tile.y }, scale);
      copyPixels({ ...large, values: drawn }, inside, result, scaled(kept, scale));
    }
    return result.values;
  }

  /** In one run, whatever memory it takes. @param image planar float32 [3, height, width] of -1 to 1 -> the same, `scale` times as large */
  async draw(image: Float32Array, { width, height }: PlaneSize, signal?: AbortSignal): Promise<Float32Array> {
    const { config } = this;
    const side = config.kind === 'esrgan' ? config.unshuffle : 1;
    const padded = { width: Math.ceil(width / side) * side, height: Math.ceil(height / side) * side };
    const pixels = reflected(image, { width, height }, padded).map((value) => value * 0.5 + 0.5);
    const feed = {
      data: unshuffled(pixels, padded, side),
      shape: [1, 3 * side * side, padded.height / side, padded.width / side],
    };
    const session = await this.#session();
    const squares = outputOf(await session.run({ image: feed }, { signal }), 'squares', 'the upscaler');
    const { scale } = config;
    const full = { width: padded.width * scale, height: padded.height * scale };
    const drawn = config.kind === 'compact' ? overNearest(squares, pixels, padded, scale) : squares;
    const cut = cutTile(drawn, full, { x: 0, y: 0, width: width * scale, height: height * scale });
    return cut.map((value) => 2 * Math.min(Math.max(value, 0), 1) - 1);
  }

  release(): Promise<void> {
    return this.#group.release();
  }
}

/** Tiles of one size, and what is kept of each: together the whole image, each with a pad where the image goes on. */
function* paddedTiles({ width, height }: PlaneSize, side: number): Generator<{ tile: Tile; kept: Tile }> {
  const [tileWidth, tileHeight] = [Math.min(side, width), Math.min(side, height)];
  const core = side - 2 * PAD;
  const start = (at: number, tile: number, length: number) => Math.min(Math.max(0, at - PAD), length - tile);
  for (let y = 0; y < height; y += core) {
    for (let x = 0; x < width; x += core) {
      const [left, top] = [start(x, tileWidth, width), start(y, tileHeight, height)];
      yield {
        tile: { x: left, y: top, width: tileWidth, height: tileHeight },
        kept: { x, y, width: Math.min(core, width - x), height: Math.min(core, height - y) },
      };
    }
  }
}

function tableOf(config: UpscalerConfig) {
  return {
    upscaler: {
      component: 'upscaler',
      residence: 'always',
      halves: HALVES,
      sizes: () => ({ B: 1, H: TILES[0], W: TILES[0] }),
      build: ({ graph, root }) => buildUpscaler(graph, root, config),
    },
  } as const satisfies Record<string, NetworkBuilder<'upscaler'>>;
}

/** Names and shapes of all tensors of an upscaler, in Real-ESRGAN's names. */
export function planUpscalerWeights(config: UpscalerConfig): WeightPlan {
  return planWeights(['upscaler'], tableOf(config)).upscaler;
}

/** Planes that are mirrored beyond their right and lower edges. */
function reflected(planes: Float32Array, from: PlaneSize, to: PlaneSize): Float32Array {
  if (from.width === to.width && from.height === to.height) return planes;
  const mirrored = (at: number, length: number) => (at < length ? at : Math.max(0, 2 * (length - 1) - at));
  return Float32Array.from({ length: 3 * to.width * to.height }, (_, i) => {
    const [colour, rest] = [Math.floor(i / (to.width * to.height)), i % (to.width * to.height)];
    const [y, x] = [mirrored(Math.floor(rest / to.width), from.height), mirrored(rest % to.width, from.width)];
    return planes[(colour * from.height + y) * from.width + x] ?? 0;
  });
}

/** [3, H, W] -> [3 * side * side, H / side, W / side], as torch's pixel_unshuffle orders the channels. */
function unshuffled(planes: Float32Array, { width, height }: PlaneSize, side: number): Float32Array {
  if (side === 1) return planes;
  const [columns, rows] = [width / side, height / side];
  return Float32Array.from({ length: planes.length }, (_, i) => {
    const [channel, rest] = [Math.floor(i / (columns * rows)), i % (columns * rows)];
    const [colour, place] = [Math.floor(channel / (side * side)), channel % (side * side)];
    const y = Math.floor(rest / columns) * side + Math.floor(place / side);
    return planes[(colour * height + y) * width + (rest % columns) * side + (place % side)] ?? 0;
  });
}

/** What a compact network adds to the image, enlarged without smoothing: [3 s * s, H, W] as torch's pixel_shuffle reads it. */
function overNearest(
  squares: Float32Array,
  image: Float32Array,
  { width, height }: PlaneSize,
  scale: number,
): Float32Array {
  const [columns, rows] = [width * scale, height * scale];
  return Float32Array.from({ length: 3 * columns * rows }, (_, i) => {
    const [colour, rest] = [Math.floor(i / (columns * rows)), i % (columns * rows)];
    const [y, x] = [Math.floor(rest / columns), rest % columns];
    const [row, column] = [Math.floor(y / scale), Math.floor(x / scale)];
    const channel = colour * scale * scale + (y % scale) * scale + (x % scale);
    const nearest = image[(colour * height + row) * width + column] ?? 0;
    return (squares[(channel * height + row) * width + column] ?? 0) + nearest;
  });
}
