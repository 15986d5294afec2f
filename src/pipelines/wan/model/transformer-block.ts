import type { Graph, Value } from '../../../graph/graph.js';
import {
  add,
  attention,
  chunks,
  layerNorm,
  linear,
  linearGeluTanh,
  mul,
  plainLayerNorm,
  rmsNorm,
} from '../../../graph/ops.js';
import { type RotaryInputs, rotary } from '../../../graph/ops-3d.js';
import { product } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import type { TransformerConfig } from './config.js';

/** Tokens: frames, rows and columns of patches. */
export const GRID = ['F', 'h', 'w'] as const;

/** Inputs that all blocks share. */
export interface BlockConditions {
  /** Text states, [B, T, D]. */
  readonly context: Value;
  /** Image states, [B, I, D]; undefined for a model that takes no images. */
  readonly images: Value | undefined;
  /** Modulation by the timestep, float32 [B, 6, D], or [B, F, 6, D] by that of each frame. */
  readonly modulation: Value;
  readonly rope: RotaryInputs;
}

export interface BlockOptions {
  /** float32 [B]: 0 for the rows that the block leaves as they are, otherwise 1. Omitted: it changes all. */
  readonly active?: Value;
}

/**
 * x: float32 [B, L, D]  ->  [B, L, D]. The residual stream, its norms, the modulation and the rotation of positions stay in float32
 * in every dialect, as the reference has them; linear layers and attention are in the dialect's type.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/transformers/transformer_wan.py#L487
 */
export function transformerBlock(
  w: Scope,
  x: Value,
  conditions: BlockConditions,
  config: TransformerConfig,
  { active }: BlockOptions = {},
): Value {
  const { graph } = w;
  const { context, images, modulation, rope } = conditions;
  const { eps, ffn_dim: inner } = config;
  const width = Number(x.shape.at(-1));
  const table = w.tensor('scale_shift_table', [1, 6, width], { like: modulation });
  const [shift, scale, gate, shift2, scale2, gate2] = chunks(
    graph,
    add(graph, table, modulation),
    6,
    modulation.shape.length - 2,
  ) as Six;
  const ifActive = (change: Value) => (active === undefined ? change : byRow(graph, change, active));

  // 1. self
  const own = graph.narrow(modulated(graph, x, shift, scale, eps));
  const { heads } = rope;
  const mixed = graph.wide(attend(w.at('attn1'), own, own, { heads, eps, rope }));
  let h = add(graph, x, scaled(graph, mixed, ifActive(gate)));
  // 2. cross
  const asked = graph.narrow(config.cross_attn_norm ? layerNorm(w.at('norm2'), h, { eps }) : h);
  h = add(graph, h, graph.wide(ifActive(attend(w.at('attn2'), asked, context, { heads, eps, images }))));
  // 3. feed-forward; net.0: GELU(tanh), net.1: dropout
  const ff = w.at('ffn.net');
  const normal = graph.narrow(modulated(graph, h, shift2, scale2, eps));
  const inside = linearGeluTanh(ff.at('0.proj'), normal, inner);
  return add(graph, h, scaled(graph, graph.wide(linear(ff.at('2'), inside, width)), ifActive(gate2)));
}

// x: [B, ...]  factors: [B]  ->  [B, ...]
function byRow(graph: Graph, x: Value, factors: Value): Value {
  const [rows = 1, ...inside] = x.shape;
  return mul(graph, x, graph.cast(graph.reshape(factors, [rows, ...inside.map(() => 1)]), x.type));
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
  const placed = (norm: string, value: Value) => graph.narrow(rotated(rmsNorm(w.at(norm), graph.wide(value), { eps })));
  const q = placed('norm_q', linear(w.at('to_q'), x, width));
  let mixed = attention(graph, {
    q,
    k: placed('norm_k', linear(w.at('to_k'), context, width)),
    v: linear(w.at('to_v'), context, width),
    heads,
  });
  if (images !== undefined) {
    const k = rmsNorm(w.at('norm_added_k'), linear(w.at('add_k_proj'), images, width), { eps });
    mixed = add(graph, mixed, attention(graph, { q, k, v: linear(w.at('add_v_proj'), images, width), heads }));
  }
  return linear(w.at('to_out.0'), mixed, width); // to_out.1: dropout
}

// norm(x) * (1 + scale) + shift; x: [B, L, D]  shift, scale: [B, 1, D] or [B, F, 1, D]
export function modulated(graph: Graph, x: Value, shift: Value, scale: Value, eps: number): Value {
  const one = graph.constant(Float32Array.of(1), [1], scale.type);
  const factor = add(graph, scale, one);
  return framed(graph, plainLayerNorm(graph, x, { eps }), scale, (y) => add(graph, mul(graph, y, factor), shift));
}

// x: [B, L, D]  gate: [B, 1, D] or [B, F, 1, D]  ->  [B, L, D]
function scaled(graph: Graph, x: Value, gate: Value): Value {
  return framed(graph, x, gate, (y) => mul(graph, y, gate));
}

// `op` on x [B, L, D], or on its frames [B, F, h*w, D] where the modulation is one of each frame
function framed(graph: Graph, x: Value, modulation: Value, op: (x: Value) => Value): Value {
  if (modulation.shape.length === x.shape.length) return op(x);
  const [batch = 1, , width = 1] = x.shape;
  const [frames, ...sides] = GRID;
  return graph.reshape(op(graph.reshape(x, [batch, frames, product(sides), width])), x.shape);
}
