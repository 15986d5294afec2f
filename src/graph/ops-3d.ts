/**
 * The ops that only video needs: rotary positions, patches, and convolution over time. A video in a convolutional network is a list
 * of frames, [1, C, H, W] each, so that whatever does not look along time is a plain 2D op.
 */

import { formatShape } from '../std/format-shape.js';
import type { Graph, Value } from './graph.js';
import { add, aroundBf16, mul, rank4, transpose } from './ops.js';
import { doubled, product, type Shape, sameShape } from './shape.js';
import type { Scope } from './weights.js';

/**
 * Turns each pair of neighbouring channels of every head by the angle of its position.
 * x: [B, L, heads*D]  cos, sin: [L, D/2], made on the host  ->  [B, L, heads*D]
 */
export function rotary(graph: Graph, x: Value, { cos, sin, heads }: RotaryInputs): Value {
  const [, tokens, width] = x.shape;
  const fits = [cos, sin].every(({ shape }) => sameShape(shape, [tokens ?? 0, Number(width) / heads / 2]));
  if (!fits) throw new Error(`rotary of ${x.name} ${formatShape(x.shape)} by ${cos.name} ${formatShape(cos.shape)}`);
  // One position stands for the first token's, the others count on from it.
  const start = graph.constant(BigInt64Array.of(0n), [1]);
  return graph.node('RotaryEmbedding', [x, start, cos, sin], x.shape, {
    domain: 'com.microsoft',
    attributes: { interleaved: 1, num_heads: heads },
  });
}

export interface RotaryInputs {
  readonly cos: Value;
  readonly sin: Value;
  readonly heads: number;
}

/**
 * Patches of one frame and `side` x `side` latents, each a token. No patch reaches over two frames, so that frames below each other are one
 * image: a convolution of two dimensions, for which providers have better kernels than for three.
 * x: [B, C, F, side*h, side*w]  ->  tokens [B, F*h*w, O]
 *
 * @param options `isFlat`: the weight is stored without the axis of frames. Default: with it
 */
export function patchEmbedding(
  w: Scope,
  x: Value,
  outputs: number,
  side: number,
  grid: Shape,
  { bias = true, isFlat = false } = {},
): Value {
  const { graph } = w;
  const [batch = 1, channels = 0, frames = 1, height = 1, width = 1] = x.shape;
  const [, h = 1, breadth = 1] = grid;
  const like = x;
  const kernel = [outputs, Number(channels)];
  const stored = isFlat ? [...kernel, side, side] : [...kernel, 1, side, side];
  const weight = w.tensor('weight', stored, { view: [...kernel, side, side], like });
  const image = graph.reshape(x, [batch, channels, product([frames, height]), width]);
  const inputs = bias ? [image, weight, w.tensor('bias', [outputs], { like })] : [image, weight];
  const patches = graph.node('Conv', inputs, [batch, outputs, product([frames, h]), breadth], {
    attributes: { kernel_shape: [side, side], strides: [side, side] },
  });
  const tokens = product(grid);
  const rows = graph.reshape(graph.reshape(patches, [batch, outputs, ...grid]), [batch, outputs, tokens]);
  return transpose(graph, rows, [0, 2, 1], [batch, tokens, outputs]);
}

/** The way back. x: [B, F*h*w, side*side*C], a patch's rows, columns and channels in this order  ->  [B, C, F, 2h, 2w] */
export function unpatch(graph: Graph, x: Value, channels: number, grid: Shape): Value {
  const [batch = 1, , width = 0] = x.shape;
  const [frames = 1, h = 1, w = 1] = grid;
  const images = product([batch, frames]);
  const [height, breadth] = [doubled(h), doubled(w)];
  const deep = transpose(graph, graph.reshape(x, [images, h, w, width]), [0, 3, 1, 2], [images, width, h, w]);
  const flat = aroundBf16(graph, deep, (input) =>
    graph.node('DepthToSpace', [input], [images, channels, height, breadth], {
      attributes: { blocksize: 2, mode: 'DCR' },
    }),
  );
  const videos = graph.reshape(flat, [batch, frames, channels, height, breadth]);
  return transpose(graph, videos, [0, 2, 1, 3, 4], [batch, channels, frames, height, breadth]);
}

/**
 * One frame of the result from three of the input: what Conv3D with three weights along time computes, as a Conv2D for each of
 * the three, summed. The weight [O, C, 3, k, k] is cut along time while the session loads.
 *
 * taps: frames [1, C, H, W], the oldest first; undefined stands for zeros  ->  [1, O, H, W]
 */
export function temporalConv(
  w: Scope,
  taps: readonly [Value | undefined, Value | undefined, Value],
  outputs: number,
  kernel: number,
): Value {
  const { graph } = w;
  const [frames, channels, height, width] = rank4(w.path, taps[2]);
  const like = taps[2];
  const weight = w.tensor('weight', [outputs, channels, 3, kernel, kernel], { like });
  const bias = w.tensor('bias', [outputs], { like });
  const pad = (kernel - 1) / 2;
  const attributes = { kernel_shape: [kernel, kernel], pads: [pad, pad, pad, pad] };
  let sum: Value | undefined;
  for (const [k, tap] of taps.entries()) {
    if (tap === undefined) continue;
    const cut = graph.cached(`tap ${k} of ${weight.name}`, () =>
      graph.node('Gather', [weight, graph.constant(Int32Array.of(k), [])], [outputs, channels, kernel, kernel], {
        attributes: { axis: 2 },
      }),
    );
    const inputs = k === 2 ? [tap, cut, bias] : [tap, cut];
    const y = graph.node('Conv', inputs, [frames, outputs, height, width], { attributes });
    sum = sum === undefined ? y : add(graph, sum, y);
  }
  if (sum === undefined) throw new Error(`${w.path}: a convolution of nothing`);
  return sum;
}

/** Conv3D with a kernel of one: x [1, C, H, W] -> [1, O, H, W]. */
export function pointConv(w: Scope, x: Value, outputs: number): Value {
  const [frames, channels, height, width] = rank4(w.path, x);
  const like = x;
  const weight = w.tensor('weight', [outputs, channels, 1, 1, 1], { view: [outputs, channels, 1, 1], like });
  return w.graph.node('Conv', [x, weight, w.tensor('bias', [outputs], { like })], [frames, outputs, height, width], {
    attributes: { kernel_shape: [1, 1] },
  });
}

/** Below this length a pixel's channels count as zero: torch's F.normalize. */
const SHORTEST = 1e-12;
/** The same of their root mean square in half precision: the smallest number that float16 holds in full. */
const SHORTEST_HALF = 2 ** -14;

/** x: [1, C, H, W]; the channels of a pixel, scaled to length sqrt(C), times `gamma` [C, …ones]. */
export function channelNorm(w: Scope, x: Value, ones: readonly number[]): Value {
  const { graph } = w;
  const [frames, channels, height, width] = rank4(w.path, x);
  const column = [frames, 1, height, width];
  const number = (value: number) => graph.constant(Float32Array.of(value), [1], 'f32');
  const axes = graph.constant(BigInt64Array.of(1n), [1]);
  const length = graph.node('ReduceL2', [graph.wide(x), axes], column, { attributes: { keepdims: 1 } });
  const gamma = w.tensor('gamma', [channels, ...ones], { view: [channels, 1, 1], like: x });
  if (x.type !== 'f32') {
    // The length may be beyond float16; the root of the mean square is at most the largest channel.
    const root = mul(graph, length, number(1 / Math.sqrt(channels)));
    const divisor = graph.node('Max', [root, number(SHORTEST_HALF)], column);
    return mul(graph, graph.node('Div', [x, graph.cast(divisor, x.type)], x.shape), gamma);
  }
  const divisor = graph.node('Max', [length, number(SHORTEST)], column);
  const gain = graph.cached(`gain ${gamma.name}`, () => mul(graph, gamma, number(Math.sqrt(channels))));
  return mul(graph, graph.node('Div', [x, divisor], x.shape), gain);
}
