import type { Graph, Value } from '../../../graph/graph.js';
import { add, gather, layerNorm, linear, mul } from '../../../graph/ops.js';
import type { Scope } from '../../../graph/weights.js';
import { clipLayer } from '../../common/clip-layer.js';
import type { TextEncoderConfig } from './config.js';

/** Added to the scores of later tokens: float32's most negative number, as in the reference. */
const MASKED = -3.4028234663852886e38;
/** What both are raised to in float16, which ends at 65504: softmax still returns 0, and no score is infinite. */
const MASKED_F16 = -60_000;
/** Added to the scores of a hidden position: enough for softmax to return 0, too little to take MASKED beyond float32. */
export const HIDDEN = -1e30;

/**
 * CLIP's text tower. Outputs of the graph:
 * `hidden` [B, T, C], the states that enter the last layer (SDXL conditions on these, without the final norm), and with
 * `projected` also `pooled` [B, P]: the final norm's state at the end token, projected.
 * Its inputs: `ids` [B, T]; `hide` [B, T], HIDDEN at positions that no token may see, else 0; with `projected` also `end`. Positions of
 * embeddings have their vectors in place of the table's: `learned` [N, C], whose first row is zeros; `at` [B, T], the row, 0 for a
 * token of the vocabulary; `kept` [B, T, 1], 1 for such a token, else 0.
 *
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/modeling_clip.py#L570
 */
export function buildTextEncoder(graph: Graph, root: Scope, config: TextEncoderConfig, projected: boolean): void {
  const tokens = config.max_position_embeddings;
  const ids = graph.input('ids', 'i32', ['B', tokens]);
  const w = root.at('text_model');

  // 1. token and position embeddings: [B, T, C]
  const width = config.hidden_size;
  const table = w.at('embeddings.token_embedding').tensor('weight', [config.vocab_size, width]);
  const positions = w.at('embeddings.position_embedding').tensor('weight', [tokens, width]);
  const learned = graph.floatInput('learned', ['N', width]);
  const kept = mul(graph, gather(graph, table, ids), graph.floatInput('kept', ['B', tokens, 1]));
  const embedded = add(graph, kept, gather(graph, learned, graph.input('at', 'i32', ['B', tokens])));
  let x = add(graph, embedded, positions);

  // 2. layers; the last one and the final norm serve only the pooled vector
  const hide = graph.reshape(graph.input('hide', 'f32', ['B', tokens]), ['B', 1, 1, tokens]);
  const mask = narrowMask(graph, add(graph, causalMask(graph, tokens), hide));
  const layer = (i: number) => clipLayer(w.at('encoder.layers', i), x, config, mask);
  for (let i = 0; i < config.num_hidden_layers - 1; i += 1) x = layer(i);
  graph.output('hidden', x);
  if (!projected) return;
  x = layerNorm(w.at('final_layer_norm'), layer(config.num_hidden_layers - 1), { eps: config.layer_norm_eps });

  // 3. the state at the end token: `end` is its row in [B*T, C]
  const end = graph.input('end', 'i32', ['B']);
  const state = gather(graph, graph.reshape(x, [`${tokens}*B`, width]), end);
  graph.output('pooled', linear(root.at('text_projection'), state, config.projection_dim, { bias: false }));
}

/** Keys of the last layer and final norm: a tower without projection has them in its file and needs neither. */
export function unusedTextEncoderKeys(config: TextEncoderConfig, projected: boolean): readonly RegExp[] {
  // A buffer, not a weight, that older exports stored.
  const positionIds = /^text_model\.embeddings\.position_ids$/;
  if (projected) return [positionIds];
  const last = config.num_hidden_layers - 1;
  return [positionIds, new RegExp(`^text_model\\.(encoder\\.layers\\.${last}|final_layer_norm)\\.`)];
}

// [1, 1, T, T]: a token sees itself and what came before
function causalMask(graph: Graph, tokens: number): Value {
  const mask = Float32Array.from({ length: tokens * tokens }, (_, i) =>
    i % tokens > Math.floor(i / tokens) ? MASKED : 0,
  );
  return graph.constant(mask, [1, 1, tokens, tokens], 'f32');
}

function narrowMask(graph: Graph, mask: Value): Value {
  if (graph.dialect.compute !== 'f16') return graph.narrow(mask);
  const least = graph.constant(Float32Array.of(MASKED_F16), [1], 'f32');
  return graph.narrow(graph.node('Max', [mask, least], mask.shape));
}
