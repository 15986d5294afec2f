import type { Value } from '../../../graph/graph.js';
import { add, gelu, layerNorm, linear } from '../../../graph/ops.js';
import type { Scope } from '../../../graph/weights.js';
import type { TransformerConfig } from './config.js';

/** torch's own, which the reference takes here whatever the transformer's is. */
const EPS = 1e-5;

/**
 * Projects the image encoder's states for the blocks. Models of a first and a last frame tell the two apart by
 * `pos_embed`.
 *
 * x: [B, I, image_dim]  ->  [B, I, D]
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/transformers/transformer_wan.py#L279
 */
export function imageEmbedder(w: Scope, x: Value, width: number, config: TransformerConfig): Value {
  const { graph } = w;
  const { image_dim: inner, pos_embed_seq_len: positions } = config;
  if (inner == null) throw new Error('an image embedder for a transformer that takes no images');
  const placed = positions == null ? x : add(graph, x, w.tensor('pos_embed', [1, positions, inner]));
  const normed = layerNorm(w.at('norm1'), placed, { eps: EPS });
  const wide = gelu(graph, linear(w.at('ff.net.0.proj'), normed, inner)); // ff.net.0: GELU, ff.net.1: dropout
  return layerNorm(w.at('norm2'), linear(w.at('ff.net.2'), wide, width), { eps: EPS });
}
