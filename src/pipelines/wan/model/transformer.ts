import type { Graph, Value } from '../../../graph/graph.js';
import { add, chunks, gather, geluTanh, linear, silu } from '../../../graph/ops.js';
import { patchEmbedding, unpatch } from '../../../graph/ops-3d.js';
import { product } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import type { TransformerConfig } from './config.js';
import { imageEmbedder } from './image-embedder.js';
import { withReferencePatches } from './reference-frame.js';
import { GRID, modulated, transformerBlock } from './transformer-block.js';
import { VaceBranch } from './vace-branch.js';
import { hasFrameTimesteps, variantOf } from './variant.js';

/** Texts are filled up with zeros to this many positions, all of which the model attends to: text_len of the original code. */
export const TEXT_POSITIONS = 512;
/** Latents to a patch, along a side. */
export const PATCH = 2;

/**
 * The denoiser. Inputs: `latents` [B, C, F, 2h, 2w]; `timestep` [B, freq_dim], a sinusoid made on the host
 * (common/timestep-embedding.ts), or [B, F, freq_dim] where each frame has its own; `text` [B, T, text_dim]; `cos` and `sin`
 * [F*h*w, D/2] (rotary-tables.ts); `active_blocks` [N, B], 0 for a block that a row skips and 1 for the others; those of VACE
 * (vace-branch.ts), whose hints are added behind skipped blocks, too, and of Fun-Control V1.1 (reference-frame.ts); `images` [B,
 * I, image_dim] where the model takes images. Outputs: `flow` [B, C, F, 2h, 2w], the velocity from latents to noise; `hidden` [B,
 * F*h*w, D], the output of the blocks. Patches, times and the way out are float32 in every dialect.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/transformers/transformer_wan.py#L625
 */
export function buildTransformer(graph: Graph, w: Scope, config: TransformerConfig): void {
  const { num_attention_heads: heads, attention_head_dim: headDim } = config;
  const width = heads * headDim;
  const tokens = product(GRID);
  const latents = graph.input('latents', 'f32', ['B', config.in_channels, 'F', '2h', '2w']);
  const timestep = timestepInput(graph, config);
  const text = graph.floatInput('text', ['B', 'T', config.text_dim]);
  const activeBlocks = graph.input('active_blocks', 'f32', [config.num_layers, 'B']);
  const rope = {
    cos: graph.input('cos', 'f32', [tokens, headDim / 2]),
    sin: graph.input('sin', 'f32', [tokens, headDim / 2]),
    heads,
  };

  // 1. patches: [B, F*h*w, D]
  let x = patchEmbedding(w.at('patch_embedding'), latents, width, 2, GRID);
  if (config.add_ref_conv) {
    x = withReferencePatches(graph, w.at('ref_conv'), x, config.out_channels ?? config.in_channels, GRID);
  }

  // 2. conditions: time [B, D], modulation of all blocks [B, 6, D], both perhaps for each frame, context [B, T, D], images [B, I, D]
  const c = w.at('condition_embedder');
  const time = embedding(c.at('time_embedder'), timestep, width, silu);
  const projected = linear(c.at('time_proj'), silu(graph, time), 6 * width);
  const modulation = graph.reshape(projected, [...time.shape.slice(0, -1), 6, width]);
  const context = embedding(c.at('text_embedder'), text, width, geluTanh);
  const images =
    config.image_dim == null
      ? undefined
      : imageEmbedder(
          c.at('image_embedder'),
          graph.floatInput('images', ['B', config.pos_embed_seq_len ?? 'I', config.image_dim]),
          width,
          config,
        );
  const conditions = { context, images, modulation, rope };

  // 3. blocks
  const branch = variantOf(config) === 'vace' ? new VaceBranch(graph, w, x, GRID, conditions, config) : undefined;
  for (let i = 0; i < config.num_layers; i += 1) {
    const hint = branch?.hint(i);
    // One at a time: WebGPU splits into no more parts than a shader has bindings for.
    const active = gather(graph, activeBlocks, graph.constant(Int32Array.of(i), []));
    x = transformerBlock(w.at('blocks', i), x, conditions, config, { active });
    if (hint !== undefined) x = add(graph, x, hint);
  }

  // 4. out
  graph.output('flow', velocity(w, x, time, config));
  graph.output('hidden', x);
}

/**
 * The same with what the blocks added in an earlier run instead of the blocks. Inputs: `hidden` [B, F*h*w, D] of that run;
 * `change` [B, C, F, 2h, 2w], the latents less those of that run; `timestep` as there. Output: `flow`.
 *
 * Patches are linear: the new ones and the old residual are together the old outcome and the patches of the change, so that
 * the residual itself is never computed.
 */
export function buildReusingTransformer(graph: Graph, w: Scope, config: TransformerConfig): void {
  const width = config.num_attention_heads * config.attention_head_dim;
  const hidden = graph.input('hidden', 'f32', ['B', product(GRID), width]);
  const change = graph.input('change', 'f32', ['B', config.in_channels, 'F', '2h', '2w']);
  const timestep = timestepInput(graph, config);
  const patches = patchEmbedding(w.at('patch_embedding'), change, width, 2, GRID, { bias: false });
  const time = embedding(w.at('condition_embedder.time_embedder'), timestep, width, silu);
  graph.output('flow', velocity(w, add(graph, hidden, patches), time, config));
}

/** The embedder of timesteps alone. Input: `timestep` [S, freq_dim]; output: `time` [S, D]. */
export function buildTimeEmbedder(graph: Graph, w: Scope, config: TransformerConfig): void {
  const width = config.num_attention_heads * config.attention_head_dim;
  const timestep = graph.input('timestep', 'f32', ['S', config.freq_dim]);
  graph.output('time', embedding(w.at('condition_embedder.time_embedder'), timestep, width, silu));
}

function timestepInput(graph: Graph, config: TransformerConfig): Value {
  const rows = hasFrameTimesteps(config) ? ['B', 'F'] : ['B'];
  return graph.input('timestep', 'f32', [...rows, config.freq_dim]);
}

// x: [B, F*h*w, D]  time: [B, D] or [B, F, D]  ->  [B, C, F, 2h, 2w]
function velocity(w: Scope, x: Value, time: Value, config: TransformerConfig): Value {
  const { graph } = w;
  const width = Number(x.shape.at(-1));
  const table = w.tensor('scale_shift_table', [1, 2, width], { like: time });
  const rows = time.shape.slice(0, -1);
  const [shift, scale] = chunks(graph, add(graph, table, graph.reshape(time, [...rows, 1, width])), 2, rows.length);
  const y = modulated(graph, x, shift as Value, scale as Value, config.eps);
  const channels = config.out_channels ?? config.in_channels;
  return unpatch(graph, linear(w.at('proj_out'), y, 4 * channels), channels, GRID);
}

// x: [..., I] -> [..., D]
function embedding(w: Scope, x: Value, width: number, activation: typeof silu): Value {
  return linear(w.at('linear_2'), activation(w.graph, linear(w.at('linear_1'), x, width)), width);
}
