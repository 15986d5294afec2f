import type { Graph, Value } from '../../../graph/graph.js';
import {
  add,
  attention,
  conv2d,
  groupNorm,
  groupNormSilu,
  linear,
  rank4,
  transpose,
  upsample2x,
} from '../../../graph/ops.js';
import { product } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import type { VaeConfig } from './config.js';

/** The autoencoder's norms, fixed in its blocks. */
const NORM_EPS = 1e-6;

/**
 * The decoder. Input: `latents` [B, 4, H, W], already divided by the scaling factor. Output: `image` [B, 3, 8H, 8W], about
 * -1 to 1. Float16 overflows in the middle block of SDXL's released VAE (`force_upcast`).
 *
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/autoencoders/vae.py#L192
 */
export function buildVaeDecoder(graph: Graph, root: Scope, config: VaeConfig): void {
  const channels = config.block_out_channels;
  const deepest = channels.at(-1) ?? 0;
  const norm = { groups: config.norm_num_groups, eps: NORM_EPS };
  const latents = graph.floatInput('latents', ['B', config.latent_channels, 'H', 'W']);
  const z = config.use_post_quant_conv
    ? conv2d(root.at('post_quant_conv'), latents, config.latent_channels, { kernel: 1 })
    : latents;
  const w = root.at('decoder');

  // 1. in, middle
  let x = conv2d(w.at('conv_in'), z, deepest);
  x = resnetBlock(w.at('mid_block.resnets.0'), x, deepest, norm);
  if (config.mid_block_add_attention) x = pixelAttention(w.at('mid_block.attentions.0'), x, norm);
  x = resnetBlock(w.at('mid_block.resnets.1'), x, deepest, norm);

  // 2. up
  for (const [i, outputs] of [...channels].reverse().entries()) {
    const block = w.at('up_blocks', i);
    for (let j = 0; j <= config.layers_per_block; j += 1) x = resnetBlock(block.at('resnets', j), x, outputs, norm);
    if (i < channels.length - 1) x = conv2d(block.at('upsamplers.0.conv'), upsample2x(graph, x), outputs);
  }

  // 3. out
  x = groupNormSilu(w.at('conv_norm_out'), x, norm);
  graph.output('image', conv2d(w.at('conv_out'), x, config.out_channels));
}

/**
 * The encoder. Input: `image` [B, 3, 8H, 8W], -1 to 1. Output: `moments` [B, 8, H, W], the mean and the logarithm of the
 * variance of the latents, not yet scaled.
 *
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/autoencoders/vae.py#L64
 */
export function buildVaeEncoder(graph: Graph, root: Scope, config: VaeConfig): void {
  const channels = config.block_out_channels;
  const [first = 0] = channels;
  const deepest = channels.at(-1) ?? 0;
  const norm = { groups: config.norm_num_groups, eps: NORM_EPS };
  const w = root.at('encoder');

  // 1. in, down
  let x = conv2d(w.at('conv_in'), graph.floatInput('image', ['B', config.in_channels, 'H', 'W']), first);
  for (const [i, outputs] of channels.entries()) {
    const block = w.at('down_blocks', i);
    for (let j = 0; j < config.layers_per_block; j += 1) x = resnetBlock(block.at('resnets', j), x, outputs, norm);
    // Padded at the right and below only, as the original was trained.
    if (i < channels.length - 1)
      x = conv2d(block.at('downsamplers.0.conv'), x, outputs, { stride: 2, pads: [0, 0, 1, 1] });
  }

  // 2. middle
  x = resnetBlock(w.at('mid_block.resnets.0'), x, deepest, norm);
  if (config.mid_block_add_attention) x = pixelAttention(w.at('mid_block.attentions.0'), x, norm);
  x = resnetBlock(w.at('mid_block.resnets.1'), x, deepest, norm);

  // 3. out
  const moments = 2 * config.latent_channels;
  x = conv2d(w.at('conv_out'), groupNormSilu(w.at('conv_norm_out'), x, norm), moments);
  if (config.use_quant_conv) x = conv2d(root.at('quant_conv'), x, moments, { kernel: 1 });
  graph.output('moments', x);
}

/** Checkpoints from before diffusers 0.18 name the attention's projections otherwise. */
export function vaeAliases(key: string): readonly string[] {
  const older: Readonly<Record<string, string>> = {
    to_q: 'query',
    to_k: 'key',
    to_v: 'value',
    'to_out.0': 'proj_attn',
  };
  return Object.entries(older)
    .filter(([name]) => key.includes(`.attentions.0.${name}.`))
    .map(([name, old]) => key.replace(`.${name}.`, `.${old}.`));
}

/** The other network's half of the file. */
export const unusedVaeDecoderKeys: readonly RegExp[] = [/^encoder\./, /^quant_conv\./];
export const unusedVaeEncoderKeys: readonly RegExp[] = [/^decoder\./, /^post_quant_conv\./];

type Norm = { readonly groups: number; readonly eps: number };

// x: [B, C, H, W] -> [B, O, H, W]
function resnetBlock(w: Scope, x: Value, outputs: number, norm: Norm): Value {
  const { graph } = w;
  const [, channels] = rank4(w.path, x);
  const h = conv2d(w.at('conv1'), groupNormSilu(w.at('norm1'), x, norm), outputs);
  const y = conv2d(w.at('conv2'), groupNormSilu(w.at('norm2'), h, norm), outputs);
  const straight = channels === outputs ? x : conv2d(w.at('conv_shortcut'), x, outputs, { kernel: 1 });
  return add(graph, straight, y);
}

// x: [B, C, H, W] -> [B, C, H, W]; one head over all pixels
function pixelAttention(w: Scope, x: Value, norm: Norm): Value {
  const { graph } = w;
  const [batch, channels, height, width] = rank4(w.path, x);
  const pixels = [batch, height, width, channels];
  const normal = groupNorm(w.at('group_norm'), x, norm);
  const h = graph.reshape(transpose(graph, normal, [0, 2, 3, 1], pixels), [batch, product([height, width]), channels]);
  const mixed = attention(graph, {
    q: linear(w.at('to_q'), h, channels),
    k: linear(w.at('to_k'), h, channels),
    v: linear(w.at('to_v'), h, channels),
    heads: 1,
  });
  const y = graph.reshape(linear(w.at('to_out.0'), mixed, channels), pixels);
  return add(graph, transpose(graph, y, [0, 3, 1, 2], x.shape), x);
}

/** Pixels to a latent, along a side. */
export function vaeScale(config: VaeConfig): number {
  return 2 ** (config.block_out_channels.length - 1);
}
