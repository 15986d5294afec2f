/**
 * The causal autoencoder, a chunk of a video at a time. Every convolution along time looks at two frames before its own, never at
 * later ones, so a chunk needs from the past only those: a graph takes them as inputs (`past.<layer>`) and gives them back as
 * outputs (`next.<layer>`), and a video's length is no part of what a run holds.
 *
 * The first frame of a video is special: nothing is before it, and the layers that double or halve time leave it alone. It has a
 * graph of its own, without inputs from the past. There the two missing frames are zeros, of which only the weights of the
 * present frame remain: a single image costs a third. Its outputs are what the graph of all later chunks takes.
 */
import type { Graph, Value } from '../../../graph/graph.js';
import { add, aroundBf16, attention, chunks, conv2d, rank4, silu, transpose, upsample2x } from '../../../graph/ops.js';
import { channelNorm, concatFrames, pointConv, slice, temporalConv } from '../../../graph/ops-3d.js';
import { doubled, halved, product } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import type { VaeConfig } from './config.js';

/** The chunk of a video that a graph is for. */
export type ChunkKind = 'first' | 'later';

/** Names of a graph's inputs and outputs that carry a layer's past. */
export const PAST = 'past.';
export const NEXT = 'next.';

/** Frames that a convolution along time looks back. */
const REACH = 2;

/**
 * The decoder. Input: `latents` [T, 16, H, W], their statistics already undone; T is 1 in the first chunk. Output: `frames`
 * [1, 3, 8H, 8W] in the first chunk and [4T, 3, 8H, 8W] in later ones, -1 to 1.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/autoencoders/autoencoder_kl_wan.py#L857
 */
export function buildVaeDecoder(graph: Graph, root: Scope, config: VaeConfig, kind: ChunkKind): void {
  const cache = new ConvCache(graph, kind);
  const base = config.decoder_base_dim ?? config.base_dim;
  const widths = config.dim_mult.map((factor) => base * factor).reverse();
  const doublesTime = [...config.temperal_downsample].reverse();
  const latents = graph.floatInput('latents', [kind === 'first' ? 1 : 'T', config.z_dim, 'H', 'W']);
  const w = root.at('decoder');

  // 1. in, middle
  let x = pointConv(root.at('post_quant_conv'), latents, config.z_dim);
  x = causalConv(w.at('conv_in'), x, widths[0] ?? 0, cache);
  x = middle(w.at('mid_block'), x, cache);

  // 2. up; halved in width where the size doubles
  for (const [i, width] of widths.entries()) {
    const block = w.at('up_blocks', i);
    for (let j = 0; j <= config.num_res_blocks; j += 1) x = resnetBlock(block.at('resnets', j), x, width, cache);
    if (i === widths.length - 1) continue;
    const up = block.at('upsamplers.0');
    if (doublesTime[i]) x = timeDoubled(up.at('time_conv'), x, cache);
    x = conv2d(up.at('resample.1'), upsample2x(graph, x), width / 2); // resample.0: upsampling
  }

  // 3. out
  x = silu(graph, channelNorm(w.at('norm_out'), x, VIDEO));
  x = causalConv(w.at('conv_out'), x, config.out_channels, cache);
  const bounds = [-1, 1].map((bound) => graph.constant(Float32Array.of(bound), [], 'f32'));
  graph.output('frames', graph.node('Clip', [graph.wide(x), ...bounds], x.shape));
}

/**
 * The encoder. Input: `frames` [1, 3, 8H, 8W] in the first chunk and [4T, 3, 8H, 8W] in later ones, -1 to 1. Output:
 * `moments` [T, 32, H, W], the mean and the logarithm of the variance of the latents, statistics not applied.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/autoencoders/autoencoder_kl_wan.py#L559
 */
export function buildVaeEncoder(graph: Graph, root: Scope, config: VaeConfig, kind: ChunkKind): void {
  const cache = new ConvCache(graph, kind);
  const widths = config.dim_mult.map((factor) => config.base_dim * factor);
  const side = 2 ** (widths.length - 1);
  const count = kind === 'first' ? 1 : multiple(framesPerLatent(config), 'T');
  const w = root.at('encoder');

  // 1. in
  const frames = graph.floatInput('frames', [count, config.in_channels, multiple(side, 'H'), multiple(side, 'W')]);
  let x = causalConv(w.at('conv_in'), frames, config.base_dim, cache);

  // 2. down; the layers are numbered through
  let layer = 0;
  const next = () => w.at('down_blocks', layer++);
  for (const [i, width] of widths.entries()) {
    for (let j = 0; j < config.num_res_blocks; j += 1) x = resnetBlock(next(), x, width, cache);
    if (i === widths.length - 1) continue;
    const down = next();
    // resample.0: zeros at the right and below only
    x = conv2d(down.at('resample.1'), x, width, { stride: 2, pads: [0, 0, 1, 1] });
    if (config.temperal_downsample[i]) x = timeHalved(down.at('time_conv'), x, cache);
  }

  // 3. middle, out
  x = middle(w.at('mid_block'), x, cache);
  x = silu(graph, channelNorm(w.at('norm_out'), x, VIDEO));
  const moments = 2 * config.z_dim;
  x = causalConv(w.at('conv_out'), x, moments, cache);
  graph.output('moments', pointConv(root.at('quant_conv'), x, moments));
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

  /** The last `frames` before `x` at this layer; undefined in the first chunk. */
  before(path: string, frames: number, x: Value): Value | undefined {
    if (this.kind === 'first') return undefined;
    return this.#graph.floatInput(PAST + path, [frames, ...x.shape.slice(1)]);
  }

  keep(path: string, frames: Value): void {
    this.#graph.output(NEXT + path, frames);
  }
}

// x: [T, C, H, W] -> [T, O, H, W]
function causalConv(w: Scope, x: Value, outputs: number, cache: ConvCache, kernel = 3): Value {
  const { graph } = w;
  const before = cache.before(w.path, REACH, x);
  if (before === undefined) {
    cache.keep(w.path, afterZeros(graph, x));
    return temporalConv(w, [undefined, undefined, x], outputs, kernel);
  }
  const [frames = 0] = x.shape;
  const all = concatFrames(graph, before, x);
  cache.keep(w.path, slice(graph, all, { axis: 0, start: -REACH }, REACH));
  const tap = (start: number, end: number) => slice(graph, all, { axis: 0, start, end }, frames);
  return temporalConv(w, [tap(0, -2), tap(1, -1), x], outputs, kernel);
}

// x: [T, C, H, W] -> [2T, C, H, W]; the first frame stays one, and is not part of the past either
function timeDoubled(w: Scope, x: Value, cache: ConvCache): Value {
  const { graph } = w;
  const [frames, channels, height, width] = rank4(w.path, x);
  if (cache.kind === 'first') {
    const shape = [REACH, channels, height, width];
    const zero = graph.constant(new Float32Array(1), [1, 1, 1, 1]);
    cache.keep(w.path, graph.node('Expand', [zero, graph.shapeValue(shape)], shape));
    return x;
  }
  // The first half of the channels is the earlier of two frames: they lie as a video already.
  const pairs = causalConv(w, x, 2 * channels, cache, 1);
  return graph.reshape(pairs, [doubled(frames), channels, height, width]);
}

// x: [2T, C, H, W] -> [T, C, H, W]; a frame from each pair and the frame before it; the first frame stays
function timeHalved(w: Scope, x: Value, cache: ConvCache): Value {
  const { graph } = w;
  const [frames, channels] = rank4(w.path, x);
  const before = cache.before(w.path, 1, x);
  cache.keep(w.path, slice(graph, x, { axis: 0, start: -1 }, 1));
  if (before === undefined) return x;
  const every = (from: Value, start: number) => slice(graph, from, { axis: 0, start, step: 2 }, halved(frames));
  const earlier = slice(graph, concatFrames(graph, before, x), { axis: 0, start: 0, end: -1 }, frames);
  return temporalConv(w, [every(earlier, 0), every(x, 0), every(x, 1)], channels, 1);
}

// x: [T, C, H, W] -> [T, O, H, W]
function resnetBlock(w: Scope, x: Value, outputs: number, cache: ConvCache): Value {
  const { graph } = w;
  const [, channels] = rank4(w.path, x);
  let h = causalConv(w.at('conv1'), silu(graph, channelNorm(w.at('norm1'), x, VIDEO)), outputs, cache);
  h = causalConv(w.at('conv2'), silu(graph, channelNorm(w.at('norm2'), h, VIDEO)), outputs, cache);
  return add(graph, h, channels === outputs ? x : pointConv(w.at('conv_shortcut'), x, outputs));
}

// x: [T, C, H, W] -> [T, C, H, W]
function middle(w: Scope, x: Value, cache: ConvCache): Value {
  const [, channels] = rank4(w.path, x);
  const h = pixelAttention(w.at('attentions.0'), resnetBlock(w.at('resnets.0'), x, channels, cache));
  return resnetBlock(w.at('resnets.1'), h, channels, cache);
}

// x: [T, C, H, W] -> [T, C, H, W]; one head over the pixels of each frame
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

// x: [1, C, H, W] -> [2, C, H, W], a frame of zeros before it
function afterZeros(graph: Graph, x: Value): Value {
  const pads = graph.constant(BigInt64Array.of(1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n), [8]);
  return aroundBf16(graph, x, (input) => graph.node('Pad', [input, pads], [REACH, ...x.shape.slice(1)]));
}

function multiple(factor: number, name: string): string {
  return factor === 1 ? name : `${factor}${name}`;
}
