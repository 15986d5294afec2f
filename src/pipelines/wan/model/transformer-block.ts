import type { Graph, Value } from '../../../graph/graph.js';
import {
  add,
  attention,
  chunks,
  geluTanh,
  layerNorm,
  linear,
  mul,
  plainLayerNorm,
  rmsNorm,
} from '../../../graph/ops.js';
import { type RotaryInputs, rotary } from '../../../graph/ops-3d.js';
import type { Scope } from '../../../graph/weights.js';
import type { TransformerConfig } from './config.js';

/** Inputs that all blocks share. */
export interface BlockConditions {
  /** Text states, [B, T, D]. */
  readonly context: Value;
  /** Image states, [B, I, D]; undefined for a model that takes no images. */
  readonly images: Value | undefined;
  /** Modulation by the timestep, [B, 6, D]. */
  readonly modulation: Value;
  readonly rope: RotaryInputs;
}

// x: [B, L, D]  ->  [B, L, D]
export function transformerBlock(w: Scope, x: Value, conditions: BlockConditions, config: TransformerConfig): Value {
  const { graph } = w;
  const { context, images, modulation, rope } = conditions;
  const { eps, ffn_dim: inner } = config;
  const width = Number(x.shape.at(-1));
  const table = w.tensor('scale_shift_table', [1, 6, width]);
  const [shift, scale, gate, shift2, scale2, gate2] = chunks(graph, add(graph, table, modulation), 6, 1) as Six;

  // 1. self
  const own = modulated(graph, x, shift, scale, eps);
  const { heads } = rope;
  let h = add(graph, x, mul(graph, attend(w.at('attn1'), own, own, { heads, eps, rope }), gate));
  // 2. cross
  const asked = config.cross_attn_norm ? layerNorm(w.at('norm2'), h, { eps }) : h;
  h = add(graph, h, attend(w.at('attn2'), asked, context, { heads, eps, images }));
  // 3. feed-forward; net.0: GELU(tanh), net.1: dropout
  const ff = w.at('ffn.net');
  const wide = geluTanh(graph, linear(ff.at('0.proj'), modulated(graph, h, shift2, scale2, eps), inner));
  return add(graph, h, mul(graph, linear(ff.at('2'), wide, width), gate2));
}

type Six = [Value, Value, Value, Value, Value, Value];

interface AttendOptions {
  readonly heads: number;
  readonly eps: number;
  readonly rope?: RotaryInputs;
  /** [B, I, A]: attended to beside the context, with keys and values of its own. */
  readonly images?: Value | undefined;
}

// x: [B, L, D]  context: [B, S, D]  ->  [B, L, D]; queries and keys are normed over all heads together
function attend(w: Scope, x: Value, context: Value, { heads, eps, rope, images }: AttendOptions): Value {
  const { graph } = w;
  const width = Number(x.shape.at(-1));
  const rotated = (value: Value) => (rope === undefined ? value : rotary(graph, value, rope));
  const q = rotated(rmsNorm(w.at('norm_q'), linear(w.at('to_q'), x, width), { eps }));
  let mixed = attention(graph, {
    q,
    k: rotated(rmsNorm(w.at('norm_k'), linear(w.at('to_k'), context, width), { eps })),
    v: linear(w.at('to_v'), context, width),
    heads,
  });
  if (images !== undefined) {
    const k = rmsNorm(w.at('norm_added_k'), linear(w.at('add_k_proj'), images, width), { eps });
    mixed = add(graph, mixed, attention(graph, { q, k, v: linear(w.at('add_v_proj'), images, width), heads }));
  }
  return linear(w.at('to_out.0'), mixed, width); // to_out.1: dropout
}

// norm(x) * (1 + scale) + shift; x: [B, L, D]  shift, scale: [B, 1, D]
export function modulated(graph: Graph, x: Value, shift: Value, scale: Value, eps: number): Value {
  const one = graph.constant(Float32Array.of(1), [1]);
  return add(graph, mul(graph, plainLayerNorm(graph, x, { eps }), add(graph, scale, one)), shift);
}
