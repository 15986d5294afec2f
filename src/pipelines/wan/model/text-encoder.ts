import type { Graph, Value } from '../../../graph/graph.js';
import { add, attention, geluTanh, linear, mul, rmsNorm, transpose } from '../../../graph/ops.js';
import type { Scope } from '../../../graph/weights.js';
import type { TextEncoderConfig } from './config.js';

/**
 * UMT5's encoder over one text. Inputs: `ids` [T], the text's own tokens, the end token the last; `buckets` [T, T], which bucket
 * the distance of each pair falls into (relative-positions.ts). Output: `states` [T, C].
 *
 * The reference pads a text to 512 tokens and hides the padding from attention: what a token sees is then the same as without
 * padding, so padding is not run. The caller fills the remaining positions with zeros.
 * The residual stream and its norms are float32 in every dialect; they and the feed-forward outgrow float16, not bfloat16.
 *
 * https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/umt5/modeling_umt5.py#L441
 */
export function buildTextEncoder(graph: Graph, root: Scope, config: TextEncoderConfig): void {
  const norm = { eps: config.layer_norm_epsilon };
  const ids = graph.input('ids', 'i32', ['T']);
  const buckets = graph.input('buckets', 'i32', ['T', 'T']);

  // 1. token embeddings: [1, T, C]; positions are in the attention
  const embedded = root.rows('shared.weight', [config.vocab_size, config.d_model], ids);
  let x = graph.wide(graph.reshape(embedded, [1, 'T', config.d_model]));

  // 2. layers
  for (let i = 0; i < config.num_layers; i += 1) {
    const block = root.at('encoder.block', i);
    const a = block.at('layer.0');
    const asked = graph.narrow(rmsNorm(a.at('layer_norm'), x, norm));
    x = add(graph, x, graph.wide(selfAttention(a.at('SelfAttention'), asked, buckets, config)));
    const m = block.at('layer.1');
    const normal = graph.narrow(rmsNorm(m.at('layer_norm'), x, norm));
    x = add(graph, x, graph.wide(feedForward(m.at('DenseReluDense'), normal, config)));
  }

  // 3. out
  const states = rmsNorm(root.at('encoder.final_layer_norm'), x, norm);
  graph.output('states', graph.reshape(states, ['T', config.d_model]));
}

/** Second name of the embeddings in files: the encoder's own name for "shared.weight". */
export function textEncoderAliases(key: string): readonly string[] {
  return key === 'shared.weight' ? ['encoder.embed_tokens.weight'] : [];
}

/** The embeddings under their second name; the tokenizer and a mark that ComfyUI puts into the file. */
export const unusedTextEncoderKeys: readonly RegExp[] = [
  /^encoder\.embed_tokens\.weight$/,
  /^spiece_model$/,
  /^scaled_fp8$/,
];

// x: [1, T, C]  buckets: [T, T]  ->  [1, T, C]
function selfAttention(w: Scope, x: Value, buckets: Value, config: TextEncoderConfig): Value {
  const { graph } = w;
  const { num_heads: heads, d_kv: width, d_model: outputs } = config;
  const project = (name: string) => linear(w.at(name), x, heads * width, { bias: false });
  const mixed = attention(graph, {
    q: project('q'),
    k: project('k'),
    v: project('v'),
    heads,
    mask: positionBias(w.at('relative_attention_bias'), buckets, config),
    // T5's scores are not divided by the root of the width.
    factor: 1,
  });
  return linear(w.at('o'), mixed, outputs, { bias: false });
}

// A number for each bucket and head, added to the scores: [1, heads, T, T]
function positionBias(w: Scope, buckets: Value, config: TextEncoderConfig): Value {
  const { graph } = w;
  const { num_heads: heads, relative_attention_num_buckets: count } = config;
  const table = transpose(graph, w.tensor('weight', [count, heads]), [1, 0], [heads, count]);
  const bias = graph.node('Gather', [table, buckets], [heads, ...buckets.shape], { attributes: { axis: 1 } });
  return graph.reshape(bias, [1, heads, ...buckets.shape]);
}

// wo(gelu(wi_0 x) * wi_1 x): [1, T, C] -> [1, T, C]
function feedForward(w: Scope, x: Value, config: TextEncoderConfig): Value {
  const { graph } = w;
  const project = (name: string) => linear(w.at(name), x, config.d_ff, { bias: false });
  const gated = mul(graph, geluTanh(graph, project('wi_0')), project('wi_1'));
  return linear(w.at('wo'), gated, config.d_model, { bias: false });
}
