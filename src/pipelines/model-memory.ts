/** What the networks of a model take on a device: plain data, which an engine process sends, and sums over it. No graph is read. */
import type { PrecisionName } from '../device.js';
import { type FrameParts, partSize } from './frame-parts.js';

/** One run of a model's networks. */
export interface RunSize {
  /** In pixels. */
  readonly width: number;
  readonly height: number;
  /** Frames of the video; 1 for an image. */
  readonly frames: number;
  /** Rows of the denoiser's batch: the images that are denoised together, twice where they are guided. */
  readonly rows: number;
}

/**
 * When a network is open. `always`: from load on. `encode`: while a job's prompts or known frames are encoded, and released after them.
 * `reference`: from the first job with a reference on. `reuse`: from the first job that reuses steps on.
 */
export type Residence = 'always' | 'encode' | 'reference' | 'reuse';

/** What one network takes for a run of one size. */
export interface PlannedNetwork {
  readonly network: string;
  readonly precision: PrecisionName;
  readonly residence: Residence;
  readonly weightBytes: number;
  /** Largest sum of the values that are alive at once in a run: see `GraphMemory`. */
  readonly peakBytes: number;
}

/** What one network takes for runs of any size: the peak is linear in pixels, in frames and in rows. */
export interface NetworkMemory extends Omit<PlannedNetwork, 'peakBytes'> {
  /** Peaks at the corners of `ModelMemory`: smallest sizes first, rows change fastest, then frames, then pixels. */
  readonly peaks: readonly number[];
  /** The peaks are those of whole frames; the network takes large ones in parts. Omitted: it takes them as they are. */
  readonly parts?: PartMemory;
}

/** What a network that works in parts takes, in bytes, at the same corners. */
export interface PartMemory extends FrameParts {
  /** What a run is fed of what is cut into parts, for whole frames. */
  readonly fed: readonly number[];
  /** The peak of what every part computes of frames as a whole. */
  readonly shared: readonly number[];
  /** What is left of that when the rest is computed: its feeds and results. */
  readonly sharedEnd: readonly number[];
}

/** The same of all networks of a model. */
export interface ModelMemory {
  /** Two sizes that differ in pixels, frames and rows; frames are equal for a model without video. */
  readonly corners: readonly [RunSize, RunSize];
  readonly networks: readonly NetworkMemory[];
}

/**
 * What the networks take for a run of a size. Peaks are interpolated between the corners, or extrapolated from them.
 * @param isShort frames are taken in the smallest parts, as where memory is short. Omitted: false
 */
export function memoryAt({ corners, networks }: ModelMemory, run: RunSize, isShort = false): readonly PlannedNetwork[] {
  const [low, high] = corners.map(axes) as [readonly number[], readonly number[]];
  // How far each axis is on the way from the low corner to the high one; 0 along an axis without length.
  const sharesOf = (size: RunSize) =>
    axes(size).map((value, i) => {
      const [from = 0, to = 0] = [low[i], high[i]];
      return to === from ? 0 : (value - from) / (to - from);
    });
  const between = (values: readonly number[], size: RunSize): number => {
    const shares = sharesOf(size);
    return values.reduce((sum, value, corner) => sum + value * weightOf(corner, shares), 0);
  };
  return networks.map(({ peaks, parts, ...network }) => {
    const ofParts = ({ fed, shared, sharedEnd, ...frameParts }: PartMemory) => {
      const part = { ...run, ...partSize(run, frameParts, isShort) };
      const beside = between(sharedEnd, run) - between(sharedEnd, part);
      return Math.max(between(peaks, part) + beside, between(fed, part) + between(shared, run));
    };
    const peakBytes = parts === undefined ? between(peaks, run) : ofParts(parts);
    return { ...network, peakBytes: Math.max(0, Math.round(peakBytes)) };
  });
}

/** Sizes at the corners, in the order of `NetworkMemory.peaks`. */
export function cornerSizes([low, high]: ModelMemory['corners']): readonly RunSize[] {
  return [low, high].flatMap(({ width, height }) =>
    [low, high].flatMap(({ frames }) => [low, high].map(({ rows }) => ({ width, height, frames, rows }))),
  );
}

function axes({ width, height, frames, rows }: RunSize): readonly number[] {
  return [width * height, frames, rows];
}

function weightOf(corner: number, shares: readonly number[]): number {
  const last = shares.length - 1;
  return shares.reduce((weight, share, axis) => weight * ((corner >> (last - axis)) & 1 ? share : 1 - share), 1);
}

/** Bytes of a network while its session is open: the session's arena keeps the peak of its runs. */
export function openBytes({ weightBytes, peakBytes }: PlannedNetwork): number {
  return weightBytes + peakBytes;
}

/** Sums over the networks of one model, in bytes. */
export interface MemorySums {
  /** Weights of what is open between jobs. */
  readonly weights: number;
  /** All that is open between jobs. */
  readonly rest: number;
  /** The largest network of those that are opened in turn, for a part of a job. */
  readonly largestInTurn: number;
}

/** @param kept residences that are open between jobs, besides `always` */
export function sumMemory(networks: readonly PlannedNetwork[], kept: readonly Residence[] = []): MemorySums {
  const open = networks.filter(({ residence }) => residence === 'always' || kept.includes(residence));
  const inTurn = networks.filter((network) => network.residence === 'encode' && !open.includes(network));
  return {
    weights: open.reduce((sum, { weightBytes }) => sum + weightBytes, 0),
    rest: open.reduce((sum, network) => sum + openBytes(network), 0),
    largestInTurn: Math.max(0, ...inTurn.map(openBytes)),
  };
}
