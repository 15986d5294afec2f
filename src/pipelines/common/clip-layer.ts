import type { Value } from '../../graph/graph.js';
import { add, attention, gelu, layerNorm, linear, quickGelu } from '../../graph/ops.js';
import type { Scope } from '../../graph/weights.js';

/** The fields of a tower's `config.json` that a layer needs. */
export interface ClipLayerConfig {
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_attention_heads: number;
  readonly hidden_act: 'gelu' | 'quick_gelu';
  readonly layer_norm_eps: number;
}

/**
 * One layer of either of CLIP's towers. x: [B, T, C] -> [B, T, C]
 * @param mask added to the scores, [B, 1, T, T]; omitted, every token sees all
 */
export function clipLayer(w: Scope, x: Value, config: ClipLayerConfig, mask?: Value): Value {
  const { graph } = w;
  const width = config.hidden_size;
  const norm = { eps: config.layer_norm_eps };

  const h = layerNorm(w.at('layer_norm1'), x, norm);
  const a = w.at('self_attn');
  const mixed = attention(graph, {
    q: linear(a.at('q_proj'), h, width),
    k: linear(a.at('k_proj'), h, width),
    v: linear(a.at('v_proj'), h, width),
    heads: config.num_attention_heads,
    ...(mask && { mask }),
  });
  const y = add(graph, x, linear(a.at('out_proj'), mixed, width));

  const activation = config.hidden_act === 'gelu' ? gelu : quickGelu;
  const m = w.at('mlp');
  const inner = activation(
    graph,
    linear(m.at('fc1'), layerNorm(w.at('layer_norm2'), y, norm), config.intermediate_size),
  );
  return add(graph, y, linear(m.at('fc2'), inner, width));
}
