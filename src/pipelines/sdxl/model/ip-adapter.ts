import type { Graph, Value } from '../../../graph/graph.js';
import { add, attention, chunk2, concat, gelu, layerNorm, linear } from '../../../graph/ops.js';
import type { Scope } from '../../../graph/weights.js';
import { imagePositions } from '../../common/image-tower.js';
import type { ImageProjectionConfig, ImagePromptConfig, UNetConfig } from './config.js';

/** Channels of a head, whatever the width: resampler.py. */
export const HEAD_CHANNELS = 64;
const NORM_EPS = 1e-5;

/**
 * From an encoded image to the tokens that the UNet attends to. Input: `embeds` [1, P] for base, `states` [S, C] for plus. Output:
 * `tokens` [K, X]. Names are those of published files.
 *
 * https://github.com/tencent-ailab/IP-Adapter/blob/main/ip_adapter/ip_adapter.py#L28
 */
export function buildImageProjection(
  graph: Graph,
  w: Scope,
  { encoder, projection }: ImagePromptConfig,
  { cross_attention_dim: width }: Pick<UNetConfig, 'cross_attention_dim'>,
): void {
  if (projection.kind === 'plus') {
    buildResampler(graph, w, { encoder, projection }, width);
    return;
  }
  const { tokens } = projection;
  const embeds = graph.floatInput('embeds', [1, encoder.projection_dim]);
  const rows = graph.reshape(linear(w.at('proj'), embeds, tokens * width), [tokens, width]);
  graph.output('tokens', layerNorm(w.at('norm'), rows, { eps: NORM_EPS }));
}

// https://github.com/tencent-ailab/IP-Adapter/blob/main/ip_adapter/resampler.py#L81
function buildResampler(
  graph: Graph,
  w: Scope,
  {
    encoder,
    projection,
  }: ImagePromptConfig & { readonly projection: Extract<ImageProjectionConfig, { kind: 'plus' }> },
  outputs: number,
): void {
  const { tokens, width, layers, heads, inner } = projection;
  const states = graph.floatInput('states', [imagePositions(encoder), encoder.hidden_size]);
  const image = linear(w.at('proj_in'), states, width);
  let x = w.tensor('latents', [1, tokens, width], { view: [tokens, width], like: image });
  for (let i = 0; i < layers; i += 1) {
    const layer = w.at('layers', i);
    x = add(graph, perceiverAttention(layer.at(0), x, image, heads), x);
    // Feed-forward: 1.2 is GELU.
    const normal = layerNorm(layer.at('1.0'), x, { eps: NORM_EPS });
    const h = gelu(graph, linear(layer.at('1.1'), normal, inner, { bias: false }));
    x = add(graph, linear(layer.at('1.3'), h, width, { bias: false }), x);
  }
  const y = linear(w.at('proj_out'), x, outputs);
  graph.output('tokens', layerNorm(w.at('norm_out'), y, { eps: NORM_EPS }));
}

// x: [K, W], what asks  image: [S, W]  ->  [K, W]; keys and values are of both.
function perceiverAttention(w: Scope, x: Value, image: Value, heads: number): Value {
  const { graph } = w;
  const inner = heads * HEAD_CHANNELS;
  const width = Number(x.shape[1]);
  const own = layerNorm(w.at('norm2'), x, { eps: NORM_EPS });
  const all = concat(graph, [layerNorm(w.at('norm1'), image, { eps: NORM_EPS }), own], 0);
  const [k, v] = chunk2(graph, linear(w.at('to_kv'), all, 2 * inner, { bias: false }));
  const q = linear(w.at('to_q'), own, inner, { bias: false });
  const oneImage = (rows: Value) => graph.reshape(rows, [1, ...rows.shape]);
  const mixed = attention(graph, { q: oneImage(q), k: oneImage(k), v: oneImage(v), heads });
  return linear(w.at('to_out'), graph.reshape(mixed, q.shape), width, { bias: false });
}

/** What a UNet with an adapter attends to besides the text. */
export interface ImageTokens {
  // [B, K, X]
  readonly tokens: Value;
  // [B, 1, 1]
  readonly scale: Value;
}

export function imageTokenInputs(
  graph: Graph,
  { tokens }: ImageProjectionConfig,
  { cross_attention_dim: width }: Pick<UNetConfig, 'cross_attention_dim'>,
): ImageTokens {
  return {
    tokens: graph.floatInput('image_tokens', ['B', tokens, width]),
    scale: graph.floatInput('image_scale', ['B', 1, 1]),
  };
}

/** Keys of an adapter's two matrices below a cross attention, without `.weight`; diffusers' names. */
export const IMAGE_KEYS = { k: 'processor.to_k_ip.0', v: 'processor.to_v_ip.0' } as const;

/**
 * The cross attentions of a UNet as adapters number them: way down, way up, middle, which is the order of diffusers' `attn_processors`.
 * Self attentions have the numbers between, so the k-th has number 2k + 1.
 */
export function crossAttentions(
  config: UNetConfig,
): readonly { readonly path: string; readonly channels: number; readonly number: number }[] {
  const channels = config.block_out_channels;
  const last = channels.length - 1;
  const of = (attention: string, i: number) =>
    Array.from({ length: config.depth[i] ?? 0 }, (_, k) => ({
      path: `${attention}.transformer_blocks.${k}.attn2`,
      channels: channels[i] ?? 0,
    }));
  const layers = (i: number, more: number) => Array.from({ length: (config.layers[i] ?? 0) + more }, (_, j) => j);
  const blocks = channels.map((_, i) => i);
  const down = blocks.flatMap((i) =>
    config.down_block_types[i] === 'CrossAttnDownBlock2D'
      ? layers(i, 0).flatMap((j) => of(`down_blocks.${i}.attentions.${j}`, i))
      : [],
  );
  const up = blocks.flatMap((i) =>
    config.up_block_types[i] === 'CrossAttnUpBlock2D'
      ? layers(last - i, 1).flatMap((j) => of(`up_blocks.${i}.attentions.${j}`, last - i))
      : [],
  );
  return [...down, ...up, ...of('mid_block.attentions.0', last)].map((each, k) => ({ ...each, number: 2 * k + 1 }));
}
