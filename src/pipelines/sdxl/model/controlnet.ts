import type { Graph, Value } from '../../../graph/graph.js';
import { add, conv2d, mul, silu } from '../../../graph/ops.js';
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
}

/** Output that stays on the device for the input of the same number. */
export function nextResidualName(i: number): string {
  return `next_${residualName(i)}`;
}

/**
 * The embedding of a control image. Input: `image` [B, 3, 8H, 8W], 0 to 1. Output: `hint` [B, C0, H, W].
 *
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/controlnets/controlnet.py#L63
 */
export function buildControlHint(graph: Graph, root: Scope, { unet, hintChannels }: ControlNetConfig): void {
  const w = root.at('controlnet_cond_embedding');
  let x = silu(graph, conv2d(w.at('conv_in'), graph.floatInput('image', ['B', 3, 'H', 'W']), hintChannels[0] ?? 0));
  for (const [i, outputs] of hintChannels.slice(1).entries()) {
    x = silu(graph, conv2d(w.at('blocks', 2 * i), x, hintChannels[i] ?? 0));
    x = silu(graph, conv2d(w.at('blocks', 2 * i + 1), x, outputs, { stride: 2 }));
  }
  graph.output('hint', conv2d(w.at('conv_out'), x, unet.block_out_channels[0] ?? 0));
}

/**
 * What a ControlNet adds to the UNet. Inputs: those of the UNet; `hint` [B, C0, H, W]; `scale` [B, 1, 1, 1]; `residual0` and so on, what
 * ControlNets before it add, [1, 1, 1, 1] of zeros for the first. Outputs: `next_residual0` and so on: those, and its own times the scale.
 *
 * Zhang et al., arXiv:2302.05543; https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/controlnets/controlnet.py#L659
 */
export function buildControlNet(graph: Graph, w: Scope, config: ControlNetConfig): void {
  const { unet, middleDepth } = config;
  const [first = 0] = unet.block_out_channels;
  const inputs = unetInputs(graph, unet);
  const scale = graph.floatInput('scale', ['B', 1, 1, 1]);
  const hint = graph.floatInput('hint', ['B', first, 'H', 'W']);

  const start = add(graph, conv2d(w.at('conv_in'), inputs.latents, first), hint);
  const { skips, middle } = buildWayDown(w, start, blockBuilders(w, inputs, unet), { ...unet, middleDepth });
  const residual = (scope: Scope, x: Value, i: number) => {
    const own = mul(graph, conv2d(scope, x, Number(x.shape[1]), { kernel: 1 }), scale);
    graph.output(nextResidualName(i), graph.node('Add', [own, residualInput(graph, i)], own.shape));
  };
  for (const [i, x] of skips.entries()) residual(w.at('controlnet_down_blocks', i), x, i);
  residual(w.at('controlnet_mid_block'), middle, skips.length);
}
