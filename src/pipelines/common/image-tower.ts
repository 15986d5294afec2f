import type { Graph, Value } from '../../graph/graph.js';
import { add, gather, layerNorm, linear, transpose } from '../../graph/ops.js';
import type { Scope } from '../../graph/weights.js';
import { clipLayer } from './clip-layer.js';
import type { ImageEncoderConfig } from './image-encoder-config.js';

/**
 * CLIP's image tower over one image. Input: `pixels` [1, 3, S, S], normalised. Output: `states` [T, C], those that enter the
 * last layer: the image's own token first, then one for each patch.
 *
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/modeling_clip.py#L743
 */
export function buildImageTower(graph: Graph, w: Scope, config: ImageEncoderConfig): void {
  graph.output('states', towerStates(graph, w, config, config.num_hidden_layers - 1));
}

/**
 * The whole tower over one image. Input: `pixels` [1, 3, S, S], normalised. Output: `embeds` [1, P], the projection of the image's
 * own token.
 *
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/modeling_clip.py#L1180
 */
export function buildImageEmbedding(graph: Graph, w: Scope, config: ImageEncoderConfig): void {
  const states = towerStates(graph, w, config, config.num_hidden_layers);
  const own = gather(graph, states, graph.constant(Int32Array.of(0), [1]));
  const normal = layerNorm(w.at('post_layernorm'), own, { eps: config.layer_norm_eps });
  graph.output('embeds', linear(w.at('visual_projection'), normal, config.projection_dim, { bias: false }));
}

// pixels, an input -> [T, C]
function towerStates(graph: Graph, w: Scope, config: ImageEncoderConfig, layers: number): Value {
  const { hidden_size: width, image_size: side } = config;
  const tokens = imagePositions(config);
  const patches = tokens - 1;
  const pixels = graph.floatInput('pixels', [1, 3, side, side]);

  // 1. patch, class and position embeddings: [1, T, C]
  const e = w.at('embeddings');
  const rows = transpose(graph, patchRows(e.at('patch_embedding'), pixels, config), [0, 2, 1], [1, patches, width]);
  const own = e.tensor('class_embedding', [width], { view: [1, 1, width] });
  let x = graph.node('Concat', [own, rows], [1, tokens, width], { attributes: { axis: 1 } });
  x = add(graph, x, e.tensor('position_embedding.weight', [tokens, width]));
  x = layerNorm(w.at('pre_layrnorm'), x, { eps: config.layer_norm_eps });

  // 2. layers
  for (let i = 0; i < layers; i += 1) x = clipLayer(w.at('encoder.layers', i), x, config);
  return graph.reshape(x, [tokens, width]);
}

// x: [1, 3, S, S] -> [1, C, patches]
function patchRows(
  w: Scope,
  x: Value,
  { hidden_size: width, image_size: side, patch_size: patch }: ImageEncoderConfig,
): Value {
  const { graph } = w;
  const inputs = [x, w.tensor('weight', [width, 3, patch, patch])];
  const grid = [side / patch, side / patch] as const;
  const attributes = { kernel_shape: [patch, patch], strides: [patch, patch] };
  return graph.reshape(graph.node('Conv', inputs, [1, width, ...grid], { attributes }), [1, width, grid[0] * grid[1]]);
}

/** The last layer and the norm behind it; a buffer that older exports stored; the whole model's projection. */
export function unusedImageTowerKeys({ num_hidden_layers: layers }: ImageEncoderConfig): readonly RegExp[] {
  return [new RegExp(`^(encoder\\.layers\\.${layers - 1}|post_layernorm)\\.`), /^embeddings\.position_ids$/, /^head$/];
}

/** A buffer that older exports stored. */
export const unusedImageEmbeddingKeys: readonly RegExp[] = [/^embeddings\.position_ids$/];

/** T: one for the whole image, and one for each patch. */
export function imagePositions({ image_size: side, patch_size: patch }: ImageEncoderConfig): number {
  return 1 + (side / patch) ** 2;
}
