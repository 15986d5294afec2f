/**
 * The causal autoencoder, a chunk of a video at a time. Every convolution along time looks at two frames before its own, never at
 * later ones, so a chunk needs from the past only those: a graph takes them as inputs (`past.<layer>.<frame>`) and gives them back
 * as outputs (`next.<layer>.<frame>`), and a video's length is no part of what a run holds.
 *
 * A chunk is a list of frames, not one tensor with a frame axis: what a layer keeps are then the frames themselves. Cut from a
 * tensor, they would keep all of it alive to the end of the run, because the runtime cuts them last.
 *
 * The first frame of a video is special: nothing is before it, and the layers that double or halve time leave it alone. It has a
 * graph of its own, without inputs from the past. There the two missing frames are zeros, of which only the weights of the
 * present frame remain: a single image costs a third. Its outputs are what the graph of all later chunks takes.
 */
import type { Graph, Value } from '../../../graph/graph.js';
import { add, attention, chunks, conv2d, rank4, silu, transpose, upsample2x } from '../../../graph/ops.js';
import { channelNorm, pointConv, temporalConv } from '../../../graph/ops-3d.js';
import { product } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import { COLOURS, type VaeConfig } from './config.js';
import { type CutSide, cutName } from './decoder-cuts.js';
import { type Frames, grown, patchesOf, pixelsOf, shrunk, zerosLike } from './vae-shortcuts.js';

/** The chunk of a video that a graph is for. */
export type ChunkKind = 'first' | 'later';

/** Names of a graph's inputs or outputs that are frames of the video. */
export const FRAME = 'frame.';
/** Names of a graph's inputs and outputs that carry a layer's past. */
export const PAST = 'past.';
export const NEXT = 'next.';

/** Frames that a convolution along time looks back. */
const REACH = 2;

/**
 * The decoder. Input: `latents` [1, 16, H, W], one frame of them, their statistics already undone. Outputs: `frame.0` to
 * `frame.3`, in the first chunk `frame.0` alone, [1, 3, 8H, 8W] each, -1 to 1. Of WAN 2.2 [1, 48, H, W] and [1, 3, 16H, 16W].
 * Cuts leave out what a part of the frames does not need: see decoder-cuts.ts. With zeros for all of them, frames are whole.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/autoencoders/autoencoder_kl_wan.py#L857
 */
export function buildVaeDecoder(graph: Graph, root: Scope, config: VaeConfig, kind: ChunkKind): void {
  const cache = new ConvCache(graph, kind);
  const base = config.decoder_base_dim ?? config.base_dim;
  const widths = config.dim_mult.map((factor) => base * factor).reverse();
  const doublesTime = [...config.temperal_downsample].reverse();
  const latents = graph.floatInput('latents', [1, config.z_dim, 'H', 'W']);
  const w = root.at('decoder');

  // 1. in, middle
  let x: Frames = [pointConv(root.at('post_quant_conv'), latents, config.z_dim)];
  x = causalConv(w.at('conv_in'), x, widths[0] ?? 0, cache);
  x = cut(graph, middle(w.at('mid_block'), x, cache), 0);

  // 2. up; without shortcuts, halved in width where the size doubles
  for (const [i, width] of widths.entries()) {
    const block = w.at('up_blocks', i);
    let before = x;
    for (let j = 0; j <= config.num_res_blocks; j += 1) x = resnetBlock(block.at('resnets', j), x, width, cache);
    if (i === widths.length - 1) continue;
    x = cut(graph, x, i + 1);
    before = config.is_residual ? cut(graph, before, i + 1) : [];
    const up = block.at(config.is_residual ? 'upsampler' : 'upsamplers.0');
    if (doublesTime[i]) x = timeDoubled(up.at('time_conv'), x, cache);
    const resampled = config.is_residual ? width : width / 2;
    x = x.map((frame) => conv2d(up.at('resample.1'), upsample2x(graph, frame), resampled)); // resample.0: upsampling
    if (config.is_residual)
      x = sums(graph, x, grown(graph, before, width, { space: 2, time: doublesTime[i] ? 2 : 1, count: x.length }));
  }

  // 3. out
  x = x.map((frame) => silu(graph, channelNorm(w.at('norm_out'), frame, VIDEO)));
  x = causalConv(w.at('conv_out'), x, config.out_channels, cache);
  const bounds = [-1, 1].map((bound) => graph.constant(Float32Array.of(bound), [], 'f32'));
  // The first frame is computed first, and its way through all layers ends before the next one's begins: see inRunOrder().
  for (const [i, patches] of [...x.entries()].reverse()) {
    const frame = pixelsOf(graph, patches, patchSide(config));
    graph.output(`${FRAME}${i}`, graph.node('Clip', [graph.wide(frame), ...bounds], frame.shape));
  }
}

/**
 * The encoder. Inputs: `frame.0` to `frame.3`, in the first chunk `frame.0` alone, [1, 3, 8H, 8W] each, -1 to 1. Output:
 * `moments` [1, 32, H, W], the mean and the logarithm of the variance of one frame of latents, statistics not applied. Of WAN 2.2
 * [1, 3, 16H, 16W] and [1, 96, H, W].
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/autoencoders/autoencoder_kl_wan.py#L559
 */
export function buildVaeEncoder(graph: Graph, root: Scope, config: VaeConfig, kind: ChunkKind): void {
  const cache = new ConvCache(graph, kind);
  const widths = config.dim_mult.map((factor) => config.base_dim * factor);
  const side = pixelsPerLatent(config);
  const size = [1, COLOURS, multiple(side, 'H'), multiple(side, 'W')];
  const w = root.at('encoder');

  // 1. in
  const frames = Array.from({ length: framesIn(config, kind) }, (_, i) => graph.floatInput(`${FRAME}${i}`, size));
  const patches = frames.map((frame) => patchesOf(graph, frame, patchSide(config)));
  let x: Frames = causalConv(w.at('conv_in'), patches, config.base_dim, cache);

  // 2. down; without shortcuts, the layers are numbered through
  let layer = 0;
  const next = () => w.at('down_blocks', layer++);
  for (const [i, width] of widths.entries()) {
    const block = config.is_residual ? next() : undefined;
    const before = x;
    for (let j = 0; j < config.num_res_blocks; j += 1)
      x = resnetBlock(block?.at('resnets', j) ?? next(), x, width, cache);
    const isLast = i === widths.length - 1;
    if (!isLast) {
      const down = block?.at('downsampler') ?? next();
      // resample.0: zeros at the right and below only
      x = x.map((frame) => conv2d(down.at('resample.1'), frame, width, { stride: 2, pads: [0, 0, 1, 1] }));
      if (config.temperal_downsample[i]) x = timeHalved(down.at('time_conv'), x, cache);
    }
    const change = { space: isLast ? 1 : 2, time: !isLast && config.temperal_downsample[i] ? 2 : 1 };
    if (block !== undefined) x = sums(graph, x, shrunk(graph, before, width, change));
  }

  // 3. middle, out
  x = middle(w.at('mid_block'), x, cache);
  x = x.map((frame) => silu(graph, channelNorm(w.at('norm_out'), frame, VIDEO)));
  const moments = 2 * config.z_dim;
  const [encoded] = causalConv(w.at('conv_out'), x, moments, cache);
  if (encoded === undefined) throw new Error('an encoder without an outcome');
  graph.output('moments', pointConv(root.at('quant_conv'), encoded, moments));
}

/** Pixels to a latent, along a side. */
export function pixelsPerLatent(config: VaeConfig): number {
  return patchSide(config) * 2 ** (config.dim_mult.length - 1);
}

function patchSide(config: VaeConfig): number {
  return config.patch_size ?? 1;
}

/** Frames of a chunk: those that one latent stands for, or the first of a video. */
export function framesIn(config: VaeConfig, kind: ChunkKind): number {
  return kind === 'first' ? 1 : framesPerLatent(config);
}

/** Frames that one latent stands for, in every chunk but the first. */
export function framesPerLatent(config: VaeConfig): number {
  return 2 ** config.temperal_downsample.filter(Boolean).length;
}

/** The other network's half of the file, and in first chunks the layers that change the number of frames. */
export function unusedVaeKeys(network: 'decoder' | 'encoder', kind: ChunkKind): readonly RegExp[] {
  const other = network === 'decoder' ? [/^encoder\./, /^quant_conv\./] : [/^decoder\./, /^post_quant_conv\./];
  return kind === 'first' ? [...other, /\.time_conv\./] : other;
}

/** A norm's `gamma` is stored [C, 1, 1, 1] between convolutions over time and [C, 1, 1] in an attention over pixels. */
const VIDEO = [1, 1, 1];
const IMAGE = [1, 1];

/** The frames that each layer keeps of one chunk for the next. */
class ConvCache {
  readonly kind: ChunkKind;
  readonly #graph: Graph;

  constructor(graph: Graph, kind: ChunkKind) {
    this.#graph = graph;
    this.kind = kind;
  }

  /** The last `count` frames before `x` at this layer; undefined in the first chunk. */
  before(path: string, count: number, x: Value): readonly (Value | undefined)[] {
    return Array.from({ length: count }, (_, i) =>
      this.kind === 'first' ? undefined : this.#graph.carriedInput(`${PAST}${path}.${i}`, x.shape),
    );
  }

  /** @param frames undefined stands for zeros of the shape of `x` */
  keep(path: string, frames: readonly (Value | undefined)[], x: Value): void {
    for (const [i, frame] of frames.entries()) {
      this.#graph.carriedOutput(`${NEXT}${path}.${i}`, frame ?? zerosLike(this.#graph, x));
    }
  }
}

function causalConv(w: Scope, x: Frames, outputs: number, cache: ConvCache, kernel = 3): Frames {
  const [first] = x as [Value];
  const all = [...cache.before(w.path, REACH, first), ...x];
  cache.keep(w.path, all.slice(-REACH), first);
  return x.map((frame, i) => temporalConv(w, [all[i], all[i + 1], frame], outputs, kernel));
}

/** Twice as many frames; the first frame of a video stays one, and is not part of the past either. */
function timeDoubled(w: Scope, x: Frames, cache: ConvCache): Frames {
  const [first] = x as [Value];
  if (cache.kind === 'first') {
    cache.keep(w.path, new Array<undefined>(REACH).fill(undefined), first);
    return x;
  }
  // The first half of the channels is the earlier of two frames.
  const channels = Number(first.shape[1]);
  return causalConv(w, x, 2 * channels, cache, 1).flatMap((pair) => chunks(w.graph, pair, 2, 1));
}

/** A frame from each pair and the frame before it; the first frame of a video stays. */
function timeHalved(w: Scope, x: Frames, cache: ConvCache): Frames {
  const [first] = x as [Value];
  const all = [...cache.before(w.path, 1, first), ...x];
  cache.keep(w.path, all.slice(-1), first);
  if (cache.kind === 'first') return x;
  const pairs = Array.from(
    { length: x.length / 2 },
    (_, i) => [all[2 * i], all[2 * i + 1], x[2 * i + 1] as Value] as const,
  );
  return pairs.map((taps) => temporalConv(w, taps, Number(first.shape[1]), 1));
}

function resnetBlock(w: Scope, x: Frames, outputs: number, cache: ConvCache): Frames {
  const { graph } = w;
  const channels = x[0]?.shape[1];
  const active = (norm: string, frames: Frames) =>
    frames.map((frame) => silu(graph, channelNorm(w.at(norm), frame, VIDEO)));
  const h = causalConv(w.at('conv1'), active('norm1', x), outputs, cache);
  const y = causalConv(w.at('conv2'), active('norm2', h), outputs, cache);
  const straight = (frame: Value) => (channels === outputs ? frame : pointConv(w.at('conv_shortcut'), frame, outputs));
  return x.map((frame, i) => add(graph, y[i] as Value, straight(frame)));
}

function middle(w: Scope, x: Frames, cache: ConvCache): Frames {
  const channels = Number(x[0]?.shape[1]);
  const h = resnetBlock(w.at('resnets.0'), x, channels, cache).map((frame) =>
    pixelAttention(w.at('attentions.0'), frame),
  );
  return resnetBlock(w.at('resnets.1'), h, channels, cache);
}

// x: [1, C, H, W] -> [1, C, H, W]; one head over the pixels of the frame
function pixelAttention(w: Scope, x: Value): Value {
  const { graph } = w;
  const [frames, channels, height, width] = rank4(w.path, x);
  const fused = conv2d(w.at('to_qkv'), channelNorm(w.at('norm'), x, IMAGE), 3 * channels, { kernel: 1 });
  const pixels = [frames, height, width, 3 * channels];
  const rows = graph.reshape(transpose(graph, fused, [0, 2, 3, 1], pixels), [
    frames,
    product([height, width]),
    3 * channels,
  ]);
  const [q, k, v] = chunks(graph, rows, 3, 2) as [Value, Value, Value];
  const mixed = graph.reshape(attention(graph, { q, k, v, heads: 1 }), [frames, height, width, channels]);
  return add(graph, x, conv2d(w.at('proj'), transpose(graph, mixed, [0, 3, 1, 2], x.shape), channels, { kernel: 1 }));
}

/** x: [1, C, H, W] each -> [1, C, H<i>, W<i>], without the rows and columns that inputs of the graph count. */
function cut(graph: Graph, x: Frames, i: number): Frames {
  const count = (side: CutSide) => graph.cached(cutName(i, side), () => graph.input(cutName(i, side), 'i64', [2]));
  const axes = graph.constant(BigInt64Array.of(2n, 3n), [2]);
  const end = graph.cached(`end of cut ${i}`, () => {
    const size = graph.node('Shape', [x[0]], [2], { type: 'i64', attributes: { start: 2, end: 4 } });
    return graph.node('Sub', [size, count('after')], [2]);
  });
  return x.map((frame) => {
    const [frames = 1, channels = 1] = frame.shape;
    return graph.node('Slice', [frame, count('before'), end, axes], [frames, channels, `H${i}`, `W${i}`]);
  });
}

function sums(graph: Graph, x: Frames, y: Frames): Frames {
  return x.map((frame, i) => add(graph, frame, y[i] as Value));
}

function multiple(factor: number, name: string): string {
  return factor === 1 ? name : `${factor}${name}`;
}
