import type { Graph, Value } from '../../graph/graph.js';
import { add, concat, conv2d, scale, upsample2x } from '../../graph/ops.js';
import type { Scope } from '../../graph/weights.js';
import type { CompactConfig, EsrganConfig, UpscalerConfig } from './upscaler-file.js';

/** Slope of ESRGAN's activations below 0, and the share of a block that is added to its input. */
const SLOPE = 0.2;
const BLOCK_SHARE = 0.2;
const CONVOLUTIONS = [1, 2, 3, 4, 5] as const;

/**
 * Input: `image` [B, C, H, W] of 0 to 1, squares of `unshuffle` pixels as channels. Output: `squares`, of the result's pixels:
 * [B, 3, sH, sW], or of a compact network [B, 3 s * s, H, W].
 */
export function buildUpscaler(graph: Graph, root: Scope, config: UpscalerConfig): void {
  const inputs = config.kind === 'esrgan' ? 3 * config.unshuffle ** 2 : 3;
  const image = graph.floatInput('image', ['B', inputs, 'H', 'W']);
  graph.output('squares', config.kind === 'esrgan' ? esrgan(root, image, config) : compact(root, image, config));
}

/** https://github.com/XPixelGroup/BasicSR/blob/v1.4.2/basicsr/archs/rrdbnet_arch.py */
function esrgan(w: Scope, image: Value, { channels, growth, blocks, doublings }: EsrganConfig): Value {
  const { graph } = w;
  const first = conv2d(w.at('conv_first'), image, channels);
  let x = first;
  for (let i = 0; i < blocks; i += 1) {
    let y = x;
    for (const dense of ['rdb1', 'rdb2', 'rdb3']) y = denseBlock(w.at('body', i).at(dense), y, channels, growth);
    x = add(graph, scale(graph, y, BLOCK_SHARE), x);
  }
  x = add(graph, first, conv2d(w.at('conv_body'), x, channels));
  for (let i = 1; i <= doublings; i += 1) x = leaky(graph, conv2d(w.at(`conv_up${i}`), upsample2x(graph, x), channels));
  return conv2d(w.at('conv_last'), leaky(graph, conv2d(w.at('conv_hr'), x, channels)), 3);
}

/** Every convolution sees the input and what all convolutions before it made. */
function denseBlock(w: Scope, x: Value, channels: number, growth: number): Value {
  const { graph } = w;
  const seen = [x];
  for (const i of CONVOLUTIONS) {
    const isLast = i === CONVOLUTIONS.length;
    const y = conv2d(w.at(`conv${i}`), concat(graph, seen, 1), isLast ? channels : growth);
    seen.push(isLast ? y : leaky(graph, y));
  }
  return add(graph, scale(graph, seen.at(-1) as Value, BLOCK_SHARE), x);
}

function leaky(graph: Graph, x: Value): Value {
  return graph.node('LeakyRelu', [x], x.shape, { attributes: { alpha: { float: SLOPE } } });
}

/** https://github.com/XPixelGroup/BasicSR/blob/v1.4.2/basicsr/archs/srvgg_arch.py */
function compact(w: Scope, image: Value, config: CompactConfig): Value {
  const { graph } = w;
  let x = image;
  for (let i = 0; i <= config.convolutions; i += 1) {
    x = conv2d(w.at('body', 2 * i), x, config.channels);
    const slopes = w
      .at('body', 2 * i + 1)
      .tensor('weight', [config.channels], { view: [config.channels, 1, 1], like: x });
    x = graph.node('PRelu', [x, slopes], x.shape);
  }
  return conv2d(w.at('body', 2 * config.convolutions + 2), x, 3 * config.scale ** 2);
}
