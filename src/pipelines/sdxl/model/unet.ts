import type { Graph, Value } from '../../../graph/graph.js';
import {
  add,
  addLinear,
  attention,
  concat,
  conv2d,
  geglu,
  groupNorm,
  groupNormSilu,
  layerNorm,
  linear,
  mul,
  rank4,
  silu,
  transpose,
  upsampleTo,
} from '../../../graph/ops.js';
import { product, type Shape } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import type { ImageProjectionConfig, UNetConfig } from './config.js';
import { IMAGE_KEYS, type ImageTokens, imageTokenInputs } from './ip-adapter.js';

/** Epsilon of the transformer's own norm, whatever `norm_eps` is: transformer_2d.py. */
const TRANSFORMER_NORM_EPS = 1e-6;
/** BasicTransformerBlock's layer norms. */
const LAYER_NORM_EPS = 1e-5;

/**
 * The denoiser. Inputs: `latents` [B, 4, H, W]; `timestep` [B, C0] and `sizes` [B, 6*A], sinusoids made on the host
 * (common/timestep-embedding.ts); `context` [B, T, X] text states; `pooled` [B, P]; `residual0` and so on, what ControlNets add to
 * the skip connections and the middle: [1, 1, 1, 1] of zeros without one. Outputs: `noise` [B, 4, H, W], and `deep` [B, C1, H, W], with
 * which the last block of the way up begins.
 * Any H and W: where a halving rounded up, the way back follows the skip connection's size.
 * With an IP-Adapter also `image_tokens` [B, K, X] and `image_scale` [B, 1, 1], which is 0 for a row without an image.
 *
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/unets/unet_2d_condition.py#L1039
 * @param adapter an IP-Adapter's. Omitted: the UNet has none
 */
export function buildUNet(graph: Graph, w: Scope, config: UNetConfig, adapter?: ImageProjectionConfig): void {
  const channels = config.block_out_channels;
  const last = channels.length - 1;

  // 1. time, sizes, text
  const inputs = unetInputs(graph, config);
  const blocks = blockBuilders(w, inputs, config, { image: adapter && imageTokenInputs(graph, adapter, config) });

  // 2. down, 3. middle
  const way = buildWayDown(w, conv2d(w.at('conv_in'), inputs.latents, channels[0] ?? 0), blocks, config);
  const added = [...way.skips, way.middle].map((x, i) => graph.node('Add', [x, residualInput(graph, i)], x.shape));
  let x = added.pop() as Value;
  const skips = added;

  // 4. up, one layer more a block, each over the skip connection of its way down
  for (let i = 0; i < last; i += 1) {
    x = upBlock(w, i, x, skips, blocks, config);
    const next = skips.at(-1) as Value;
    x = conv2d(w.at('up_blocks', i).at('upsamplers.0.conv'), upsampleTo(graph, x, next), channels[last - i] ?? 0);
  }
  graph.output(DEEP, x);

  // 5. the last block, out
  buildEnd(w, upBlock(w, last, x, skips, blocks, config), config);
}

/** Name of the value that a shallow run takes over from a whole one. */
export const DEEP = 'deep';

/**
 * The denoiser without what is below its first block: the last block of the way up goes on with `deep` of a whole run, which
 * changes little from step to step. Ma et al., arXiv:2312.00858 (DeepCache), with the branch behind the first block. Its inputs and
 * `noise` are those of the denoiser; of the residuals it has those of its own skip connections.
 */
export function buildShallowUNet(graph: Graph, w: Scope, config: UNetConfig, adapter?: ImageProjectionConfig): void {
  const channels = config.block_out_channels;
  const inputs = unetInputs(graph, config);
  const blocks = blockBuilders(w, inputs, config, { image: adapter && imageTokenInputs(graph, adapter, config) });
  const start = conv2d(w.at('conv_in'), inputs.latents, channels[0] ?? 0);
  const skips = [start, ...downLayers(w, 0, start, blocks, config)].map((x, i) =>
    graph.node('Add', [x, residualInput(graph, i)], x.shape),
  );
  const deep = graph.floatInput(DEEP, ['B', channels[1] ?? 0, 'H', 'W']);
  buildEnd(w, upBlock(w, channels.length - 1, deep, skips, blocks, config), config);
}

/** Skip connections of the first block. */
export function shallowResidualCount({ layers }: Pick<UNetConfig, 'layers'>): number {
  return 1 + (layers[0] ?? 0);
}

/** A block of the way up, over the last skip connections, which it takes off the list. */
function upBlock(
  w: Scope,
  i: number,
  start: Value,
  skips: Value[],
  { resnet, transformer }: BlockBuilders,
  config: UNetConfig,
): Value {
  const block = w.at('up_blocks', i);
  const mirror = config.block_out_channels.length - 1 - i;
  let x = start;
  for (let j = 0; j <= (config.layers[mirror] ?? 0); j += 1) {
    const skip = skips.pop();
    if (skip === undefined) throw new Error('the way up has more layers than the way down');
    x = resnet(block.at('resnets', j), concat(w.graph, [x, skip], 1), config.block_out_channels[mirror] ?? 0);
    if (config.up_block_types[i] === 'CrossAttnUpBlock2D')
      x = transformer(block.at('attentions', j), x, mirror, config.depth[mirror] ?? 0);
  }
  return x;
}

function buildEnd(w: Scope, x: Value, config: UNetConfig): void {
  const { graph } = w;
  const norm = { groups: config.norm_num_groups, eps: config.norm_eps };
  const y = groupNormSilu(w.at('conv_norm_out'), x, norm);
  graph.output('noise', conv2d(w.at('conv_out'), y, config.out_channels));
}

/** Name of the input that is added to skip connection `i`, and to the middle behind the last of them. */
export function residualName(i: number): string {
  return `residual${i}`;
}

// Each of its own dimensions: those of the value it is added to, or ones.
export function residualInput(graph: Graph, i: number): Value {
  return graph.floatInput(
    residualName(i),
    ['b', 'c', 'h', 'w'].map((axis) => `${residualName(i)}.${axis}`),
  );
}

/** Skip connections of the way down, and its middle. */
export function residualCount({ layers }: Pick<UNetConfig, 'layers'>): number {
  // The first convolution, the layers, a downsampler behind each block but the last, the middle.
  return 1 + layers.reduce((sum, count) => sum + count, 0) + (layers.length - 1) + 1;
}

/** Run-time dimensions of residuals that are zeros. */
export function noResidualSizes(config: Pick<UNetConfig, 'layers'>): Readonly<Record<string, number>> {
  const count = residualCount(config);
  const names = Array.from({ length: count }, (_, i) =>
    ['b', 'c', 'h', 'w'].map((axis) => `${residualName(i)}.${axis}`),
  );
  return Object.fromEntries(names.flat().map((name) => [name, 1]));
}

export interface UNetInputs {
  readonly latents: Value;
  readonly timestep: Value;
  readonly sizes: Value;
  readonly context: Value;
  readonly pooled: Value;
}

export function unetInputs(graph: Graph, config: UNetConfig): UNetInputs {
  const pooledWidth = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim;
  return {
    latents: graph.floatInput('latents', ['B', config.in_channels, 'H', 'W']),
    timestep: graph.floatInput('timestep', ['B', config.block_out_channels[0] ?? 0]),
    sizes: graph.floatInput('sizes', ['B', 6 * config.addition_time_embed_dim]),
    context: graph.floatInput('context', ['B', 'T', config.cross_attention_dim]),
    pooled: graph.floatInput('pooled', ['B', pooledWidth]),
  };
}

export interface BlockBuilders {
  // x: [B, C, H, W] -> [B, outputs, H, W]
  resnet(scope: Scope, x: Value, outputs: number): Value;
  // x: [B, C, H, W] -> [B, C, H, W]; `block` gives the number of heads
  transformer(scope: Scope, x: Value, block: number, depth: number): Value;
}

/** @param options `more`: inputs of further embeddings, [B, I], by their names, which are added to that of the time; `image`: of an IP-Adapter */
export function blockBuilders(
  w: Scope,
  inputs: UNetInputs,
  config: UNetConfig,
  {
    more = {},
    image,
  }: { readonly more?: Readonly<Record<string, Value>>; readonly image?: ImageTokens | undefined } = {},
): BlockBuilders {
  const { graph } = w;
  const [first = 0] = config.block_out_channels;
  const norm = { groups: config.norm_num_groups, eps: config.norm_eps };
  // Time, size and pooled text: [B, 4*C0]; every res block takes it after SiLU.
  let emb = add(
    graph,
    twoLayers(w.at('time_embedding'), inputs.timestep, 4 * first),
    twoLayers(w.at('add_embedding'), concat(graph, [inputs.pooled, inputs.sizes], 1), 4 * first),
  );
  for (const [name, input] of Object.entries(more)) emb = add(graph, emb, twoLayers(w.at(name), input, 4 * first));
  const time = silu(graph, emb);
  const context = {
    text: rowsOf(graph, inputs.context),
    image: image && { ...image, rows: rowsOf(graph, image.tokens) },
  };
  return {
    resnet: (scope, x, outputs) => resnetBlock(scope, x, time, outputs, norm),
    transformer: (scope, x, block, depth) =>
      spatialTransformer(scope, x, context, {
        heads: config.heads[block] ?? 1,
        depth,
        groups: config.norm_num_groups,
        linearProjection: config.use_linear_projection,
      }),
  };
}

/** The way down and the middle, of which a ControlNet has a copy. A middle of depth 0 has one res block and no attention. */
export function buildWayDown(
  w: Scope,
  start: Value,
  { resnet, transformer }: BlockBuilders,
  config: Pick<UNetConfig, 'block_out_channels' | 'layers' | 'down_block_types' | 'depth'> & {
    readonly middleDepth?: number;
  },
): { readonly skips: Value[]; readonly middle: Value } {
  const channels = config.block_out_channels;
  const last = channels.length - 1;
  let x = start;
  const skips = [x];
  for (const [i, outputs] of channels.entries()) {
    const layers = downLayers(w, i, x, { resnet, transformer }, config);
    skips.push(...layers);
    x = layers.at(-1) ?? x;
    if (i === last) continue;
    x = conv2d(w.at('down_blocks', i).at('downsamplers.0.conv'), x, outputs, { stride: 2 });
    skips.push(x);
  }
  const { middleDepth = config.depth[last] ?? 0 } = config;
  const middle = channels[last] ?? 0;
  x = resnet(w.at('mid_block.resnets.0'), x, middle);
  if (middleDepth > 0) {
    x = transformer(w.at('mid_block.attentions.0'), x, last, middleDepth);
    x = resnet(w.at('mid_block.resnets.1'), x, middle);
  }
  return { skips, middle: x };
}

/** What each layer of a block of the way down gives. */
function downLayers(
  w: Scope,
  i: number,
  start: Value,
  { resnet, transformer }: BlockBuilders,
  config: Pick<UNetConfig, 'block_out_channels' | 'layers' | 'down_block_types' | 'depth'>,
): readonly Value[] {
  const block = w.at('down_blocks', i);
  const outputs: Value[] = [];
  let x = start;
  for (let j = 0; j < (config.layers[i] ?? 0); j += 1) {
    x = resnet(block.at('resnets', j), x, config.block_out_channels[i] ?? 0);
    if (config.down_block_types[i] === 'CrossAttnDownBlock2D')
      x = transformer(block.at('attentions', j), x, i, config.depth[i] ?? 0);
    outputs.push(x);
  }
  return outputs;
}

// x: [B, I] -> [B, O]
function twoLayers(w: Scope, x: Value, outputs: number): Value {
  return linear(w.at('linear_2'), silu(w.graph, linear(w.at('linear_1'), x, outputs)), outputs);
}

// x: [B, C, H, W]  time: [B, E]  ->  [B, O, H, W]
function resnetBlock(w: Scope, x: Value, time: Value, outputs: number, norm: { groups: number; eps: number }): Value {
  const { graph } = w;
  const [batch, channels] = rank4(w.path, x);
  let h = conv2d(w.at('conv1'), groupNormSilu(w.at('norm1'), x, norm), outputs);
  h = add(graph, h, graph.reshape(linear(w.at('time_emb_proj'), time, outputs), [batch, outputs, 1, 1]));
  h = conv2d(w.at('conv2'), groupNormSilu(w.at('norm2'), h, norm), outputs);
  const straight = channels === outputs ? x : conv2d(w.at('conv_shortcut'), x, outputs, { kernel: 1 });
  return add(graph, straight, h);
}

/** Tokens of several texts or images as the rows of one matrix, as linear layers take them. */
interface Rows {
  // [B*L, C]
  readonly rows: Value;
  /** B and L. */
  readonly tokens: Shape;
}

// x: [B, L, C]
function rowsOf(graph: Graph, x: Value): Rows {
  const tokens = x.shape.slice(0, -1);
  return { rows: graph.reshape(x, [product(tokens), x.shape.at(-1) ?? 0]), tokens };
}

/** What cross attentions attend to. */
interface Context {
  readonly text: Rows;
  readonly image: { readonly rows: Rows; readonly scale: Value } | undefined;
}

interface TransformerOptions {
  readonly heads: number;
  readonly depth: number;
  readonly groups: number;
  readonly linearProjection: boolean;
}

// x: [B, C, H, W]  context: [B*T, X]  ->  [B, C, H, W]
function spatialTransformer(w: Scope, x: Value, context: Context, options: TransformerOptions): Value {
  const { graph } = w;
  const { groups, linearProjection } = options;
  const [batch, channels, height, width] = rank4(w.path, x);
  const tokens = [batch, product([height, width])];
  const pixels = [batch, height, width, channels];
  const toRows = (image: Value) =>
    graph.reshape(transpose(graph, image, [0, 2, 3, 1], pixels), [product(tokens), channels]);
  const toImage = (rows: Value) => transpose(graph, graph.reshape(rows, pixels), [0, 3, 1, 2], x.shape);

  const normal = groupNorm(w.at('norm'), x, { groups, eps: TRANSFORMER_NORM_EPS });
  let h = linearProjection
    ? linear(w.at('proj_in'), toRows(normal), channels)
    : toRows(conv2d(w.at('proj_in'), normal, channels, { kernel: 1 }));
  for (let k = 0; k < options.depth; k += 1)
    h = transformerBlock(w.at('transformer_blocks', k), { rows: h, tokens }, context, options.heads);
  const y = linearProjection
    ? toImage(linear(w.at('proj_out'), h, channels))
    : conv2d(w.at('proj_out'), toImage(h), channels, { kernel: 1 });
  return add(graph, y, x);
}

// x: [B*L, C]  context: [B*T, X]  ->  [B*L, C]
function transformerBlock(w: Scope, { rows: x, tokens }: Rows, context: Context, heads: number): Value {
  const normal = (key: string, rows: Value) => ({ rows: layerNorm(w.at(key), rows, { eps: LAYER_NORM_EPS }), tokens });
  const first = normal('norm1', x);
  let h = addAttention(w.at('attn1'), x, first, { text: first, image: undefined }, heads); // 1. self
  h = addAttention(w.at('attn2'), h, normal('norm2', h), context, heads); // 2. cross
  return addFeedForward(w.at('ff'), h, normal('norm3', h).rows); // 3. feed-forward
}

// h, x: [B*L, C]  text: [B*S, X]  image: [B*K, X]  ->  h + out, [B*L, C]
// out = attention(q, k, v) + scale * attention(q, k of the image, v of the image): arXiv:2308.06721, 3.2.2
function addAttention(w: Scope, h: Value, x: Rows, { text, image }: Context, heads: number): Value {
  const { graph } = w;
  const channels = Number(x.rows.shape.at(-1));
  const project = (key: string, { rows, tokens }: Rows) =>
    graph.reshape(linear(w.at(key), rows, channels, { bias: false }), [...tokens, channels]);
  const q = project('to_q', x);
  let mixed = attention(graph, { q, k: project('to_k', text), v: project('to_v', text), heads });
  if (image !== undefined) {
    const [k, v] = [project(IMAGE_KEYS.k, image.rows), project(IMAGE_KEYS.v, image.rows)];
    mixed = add(graph, mixed, mul(graph, attention(graph, { q, k, v, heads }), image.scale));
  }
  return addLinear(w.at('to_out.0'), h, graph.reshape(mixed, x.rows.shape)); // to_out.1: dropout
}

// h, x: [R, C] -> [R, C]
function addFeedForward(w: Scope, h: Value, x: Value): Value {
  const channels = Number(x.shape.at(-1));
  return addLinear(w.at('net.2'), h, geglu(w.at('net.0.proj'), x, 4 * channels)); // net.1: dropout
}
