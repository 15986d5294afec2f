import type { Graph, Value } from '../../../graph/graph.js';
import { add, conv2d, gather, layerNorm, linear, mul, quickGelu, silu } from '../../../graph/ops.js';
import type { Scope } from '../../../graph/weights.js';
import type { UNetConfig } from './config.js';
import { blockBuilders, buildWayDown, residualInput, residualName, unetInputs } from './unet.js';

/** A ControlNet's configuration: that of the UNet it belongs to, with its own attention and its own way in for the control. */
export interface ControlNetConfig {
  readonly unet: UNetConfig;
  /** Transformer blocks of the attention in the middle; 0: it has none. */
  readonly middleDepth: number;
  /** Channels of the control's embedding, outermost first; each after the first halves the image. */
  readonly hintChannels: readonly number[];
  /** A union model: the kinds of control images that it knows, and the layers that shift its embedding. Omitted: an ordinary one. */
  readonly union?: { readonly modes: number; readonly layers: number } | undefined;
}

/** Output that stays on the device for the input of the same number. */
export function nextResidualName(i: number): string {
  return `next_${residualName(i)}`;
}

/**
 * The embedding of a control image. Input: `image` [B, 3, 8H, 8W], 0 to 1; for a union model
 * `mode` [B], the kind of the image. Output: `hint` [B, C0, H, W].
 *
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/controlnets/controlnet.py#L63
 */
export function buildControlHint(graph: Graph, root: Scope, { unet, hintChannels, union }: ControlNetConfig): void {
  const w = root.at('controlnet_cond_embedding');
  let x = silu(graph, conv2d(w.at('conv_in'), graph.floatInput('image', ['B', 3, 'H', 'W']), hintChannels[0] ?? 0));
  for (const [i, outputs] of hintChannels.slice(1).entries()) {
    x = silu(graph, conv2d(w.at('blocks', 2 * i), x, hintChannels[i] ?? 0));
    x = silu(graph, conv2d(w.at('blocks', 2 * i + 1), x, outputs, { stride: 2 }));
  }
  const hint = conv2d(w.at('conv_out'), x, unet.block_out_channels[0] ?? 0);
  graph.output('hint', union === undefined ? hint : fuse(root, hint, union));
}

/**
 * What a ControlNet adds to the UNet. Inputs: those of the UNet; `hint` [B, C0, H, W]; `scale` [B, 1, 1, 1]; `residual0` and so on, what
 * ControlNets before it add, [1, 1, 1, 1] of zeros for the first; for a union model `modes` [B, M*A],
 * sinusoids of 1 for the kind of the image and 0 for the others. Outputs: `next_residual0` and so on: those, and its own times the scale.
 *
 * Zhang et al., arXiv:2302.05543; https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/controlnets/controlnet.py#L659
 */
export function buildControlNet(graph: Graph, w: Scope, config: ControlNetConfig): void {
  const { unet, middleDepth, union } = config;
  const [first = 0] = unet.block_out_channels;
  const inputs = unetInputs(graph, unet);
  const scale = graph.floatInput('scale', ['B', 1, 1, 1]);
  const hint = graph.floatInput('hint', ['B', first, 'H', 'W']);

  const latents = conv2d(w.at('conv_in'), inputs.latents, first);
  const modes = union && graph.floatInput('modes', ['B', union.modes * unet.addition_time_embed_dim]);
  const blocks = blockBuilders(w, inputs, unet, modes && { more: { control_add_embedding: modes } });
  const { skips, middle } = buildWayDown(w, add(graph, latents, hint), blocks, { ...unet, middleDepth });
  const residual = (scope: Scope, x: Value, i: number) => {
    const own = mul(graph, conv2d(scope, x, Number(x.shape[1]), { kernel: 1 }), scale);
    graph.output(nextResidualName(i), graph.node('Add', [own, residualInput(graph, i)], own.shape));
  };
  for (const [i, x] of skips.entries()) residual(w.at('controlnet_down_blocks', i), x, i);
  residual(w.at('controlnet_mid_block'), middle, skips.length);
}

/**
 * The embedding of a union model's control, shifted by what its layers make of its mean and its kind. hint: [B, C, H, W] -> the same.
 *
 * The reference attends over the batch in place of the tokens (`nn.MultiheadAttention` takes the first axis for the sequence). The rows of
 * one image are equal there, so that attention returns their values, and the token of the latents has no effect; other images of a batch
 * would change the result, which they do not here.
 *
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/controlnets/controlnet_union.py#L733
 */
function fuse(w: Scope, hint: Value, { modes, layers }: { readonly modes: number; readonly layers: number }): Value {
  const { graph } = w;
  const channels = Number(hint.shape[1]);
  const mean = graph.reshape(graph.node('GlobalAveragePool', [hint], ['B', channels, 1, 1]), ['B', channels]);
  const tasks = gather(graph, w.tensor('task_embedding', [modes, channels]), graph.input('mode', 'i32', ['B']));
  const norm = { eps: 1e-5 };
  let x = add(graph, mean, tasks);
  for (let i = 0; i < layers; i += 1) {
    const layer = w.at('transformer_layes', i);
    const values = linear(layer.at('self_attn.v_proj'), layerNorm(layer.at('layer_norm1'), x, norm), channels);
    x = add(graph, x, linear(layer.at('self_attn.out_proj'), values, channels));
    const inner = linear(layer.at('mlp.fc1'), layerNorm(layer.at('layer_norm2'), x, norm), 4 * channels);
    x = add(graph, x, linear(layer.at('mlp.fc2'), quickGelu(graph, inner), channels));
  }
  const shift = linear(w.at('spatial_ch_projs'), x, channels);
  return add(graph, hint, graph.reshape(shift, ['B', channels, 1, 1]));
}
