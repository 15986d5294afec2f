/**
 * What the VAE of WAN 2.2 has beside its convolutions: patches of pixels as channels, and shortcuts past the blocks that change the
 * size. A shortcut has no weights: it moves pixels and frames into channels and takes means, or repeats channels and moves them back.
 *
 * https://github.com/Wan-Video/Wan2.2/blob/42bf4cfaa384bc21833865abc2f9e6c0e67233dc/wan/modules/vae2_2.py#L316
 */
import type { Graph, Value } from '../../../graph/graph.js';
import { aroundBf16, concat, rank4, transpose } from '../../../graph/ops.js';
import { divided, multiplied } from '../../../graph/shape.js';

/** Frames of a chunk, [1, C, H, W] each. */
export type Frames = readonly Value[];

/** Factors by which a block changes the size: of each side, and of the number of frames. */
export interface SizeChange {
  readonly space: number;
  readonly time: number;
}

/** x: [1, C, s*H, s*W] -> [1, C*s*s, H, W]; a patch's columns are before its rows. */
export function patchesOf(graph: Graph, x: Value, side: number): Value {
  return side === 1 ? x : folded(graph, x, side, [0, 1, 5, 3, 2, 4]);
}

/** The way back. x: [1, C*s*s, H, W] -> [1, C, s*H, s*W] */
export function pixelsOf(graph: Graph, x: Value, side: number): Value {
  if (side === 1) return x;
  const [frames, channels, height, width] = rank4('patches', x);
  const colours = channels / side ** 2;
  const patches = graph.reshape(x, [frames, colours, side, side, height, width]);
  return unfolded(graph, patches, [0, 1, 4, 3, 5, 2]);
}

/**
 * The shortcut past a block that shrinks: the pixels and frames that become one are its channels, and each new channel is the mean of
 * as many neighbouring ones as there are too many. The first frame of a video has zeros before it.
 */
export function shrunk(graph: Graph, x: Frames, channels: number, { space, time }: SizeChange): Frames {
  const count = Math.ceil(x.length / time);
  const missing = count * time - x.length;
  const all = [...x.slice(0, missing).map((frame) => zerosLike(graph, frame)), ...x];
  return Array.from({ length: count }, (_, i) => {
    const taps = all.slice(i * time, (i + 1) * time);
    const patches = taps.map((frame) => (space === 1 ? frame : folded(graph, frame, space, [0, 1, 3, 5, 2, 4])));
    const [frames, inputs, height, width] = rank4('a shortcut', patches[0] as Value);
    // channels, frames, pixels of a patch
    const old = inputs / space ** 2;
    const columns = patches.map((patch) => graph.reshape(patch, [frames, old, 1, space ** 2, height, width]));
    const group = (inputs * time) / channels;
    const grouped = graph.reshape(concat(graph, columns, 2), [frames, channels, group, height, width]);
    return groupMean(graph, grouped);
  });
}

/**
 * The shortcut past a block that grows: each channel, repeated, becomes pixels and frames.
 * @param count of the last frames that are wanted: the first frame of a video stays one
 */
export function grown(graph: Graph, x: Frames, channels: number, change: SizeChange & { count: number }): Frames {
  const { space, time, count } = change;
  const places = x.flatMap((frame) => Array.from({ length: time }, (_, place) => [frame, place] as const));
  return places.slice(-count).map(([frame, place]) => {
    const [frames, inputs, height, width] = rank4('a shortcut', frame);
    const repeats = (channels * time * space ** 2) / inputs;
    const repeated = graph.cached(`repeated ${repeats} ${frame.name}`, () => {
      const single = graph.reshape(frame, [frames, inputs, 1, height, width]);
      const shape = [frames, inputs, repeats, height, width];
      return graph.node('Expand', [single, graph.shapeValue(shape)], shape);
    });
    const pixels = graph.reshape(repeated, [frames, channels, time, space, space, height, width]);
    const index = graph.constant(Int32Array.of(place), []);
    const own = graph.node('Gather', [pixels, index], [frames, channels, space, space, height, width], {
      attributes: { axis: 2 },
    });
    return unfolded(graph, own, [0, 1, 4, 2, 5, 3]);
  });
}

/** Zeros of the shape of `x`. */
export function zerosLike(graph: Graph, x: Value): Value {
  const zero = graph.constant(new Float32Array(1), [1, 1, 1, 1], x.type);
  return graph.cached(`zeros ${x.type} ${x.shape}`, () =>
    graph.node('Expand', [zero, graph.shapeValue(x.shape)], x.shape),
  );
}

// x: [1, C, s*H, s*W], seen as [1, C, H, s, W, s] -> [1, C*s*s, H, W]; `perm` puts the sides of a patch behind C
function folded(graph: Graph, x: Value, side: number, perm: readonly number[]): Value {
  const [frames, channels, height, width] = rank4('patches', x);
  const [h, w] = [divided(height, side), divided(width, side)];
  // Side by side: a reshape can find one new dimension.
  const columns = graph.reshape(x, [frames, channels, height, w, side]);
  const seen = graph.reshape(columns, [frames, channels, h, side, w, side]);
  const moved = transpose(graph, seen, perm, [frames, channels, side, side, h, w]);
  return graph.reshape(moved, [frames, channels * side ** 2, h, w]);
}

// x: [1, C, s, s, H, W] -> [1, C, s*H, s*W]; `perm` makes it [1, C, H, s, W, s]
function unfolded(graph: Graph, x: Value, perm: readonly number[]): Value {
  const [frames = 1, channels = 1, side, , height = 1, width = 1] = x.shape;
  if (typeof side !== 'number') throw new Error(`the side of a patch is ${side}`);
  const moved = transpose(graph, x, perm, [frames, channels, height, side, width, side]);
  const wide = multiplied(width, side);
  const rows = graph.reshape(moved, [frames, channels, height, side, wide]);
  return graph.reshape(rows, [frames, channels, multiplied(height, side), wide]);
}

// x: [1, C, G, H, W] -> [1, C, H, W]
function groupMean(graph: Graph, x: Value): Value {
  const [frames = 1, channels = 1, group, height = 1, width = 1] = x.shape;
  const shape = [frames, channels, height, width];
  if (group === 1) return graph.reshape(x, shape);
  const axes = graph.constant(BigInt64Array.of(2n), [1]);
  return aroundBf16(graph, x, (input) =>
    graph.node('ReduceMean', [input, axes], shape, { attributes: { keepdims: 0 } }),
  );
}
