/**
 * The ops that the model graphs are written in. Each checks its shapes while the graph is built and names the tensor and both
 * shapes when they do not fit. Which ONNX op stands for what, and on which providers it was seen to be right, is in
 * docs/reference/graph.md.
 */

import { formatShape } from '../std/format-shape.js';
import type { Fusion } from './dialect.js';
import type { Graph, Value } from './graph.js';
import { broadcast, doubled, halved, product, type Shape } from './shape.js';
import type { Scope } from './weights.js';

export function add(graph: Graph, a: Value, b: Value): Value {
  return binary(graph, 'Add', a, b);
}

export function mul(graph: Graph, a: Value, b: Value): Value {
  return binary(graph, 'Mul', a, b);
}

function binary(graph: Graph, op: string, a: Value, b: Value): Value {
  const shape = broadcast(a.shape, b.shape);
  if (shape === undefined) {
    throw new Error(`${op} of ${a.name} ${formatShape(a.shape)} and ${b.name} ${formatShape(b.shape)}: shapes differ`);
  }
  return graph.node(op, [a, b], shape);
}

/**
 * An op that CUDA has no bfloat16 kernel for: in float32 then. Kernels:
 * https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md
 */
export function aroundBf16(graph: Graph, x: Value, op: (input: Value) => Value): Value {
  return x.type === 'bf16' ? graph.cast(op(graph.wide(x)), 'bf16') : op(x);
}

/** x * factor. In float32: a factor rounded to half precision would put the same error into every element. */
export function scale(graph: Graph, x: Value, factor: number): Value {
  if (factor === 1) return x;
  const product = mul(graph, graph.wide(x), graph.constant(Float32Array.of(factor), [1], 'f32'));
  return graph.cast(product, x.type);
}

// x: [..., I]  ->  [..., O]; weight [O, I] as torch stores it, so that no transposed copy is made while loading.
export function linear(w: Scope, x: Value, outputs: number, { bias: hasBias = true } = {}): Value {
  const { graph } = w;
  const inputs = fixedWidth(w.path, x);
  const rows = x.shape.slice(0, -1);
  const flat = rows.length === 1 ? x : graph.reshape(x, [product(rows), inputs]);
  const like = x;
  const weight = w.quantised('weight', [outputs, inputs]) ?? w.tensor('weight', [outputs, inputs], { like });
  const bias = hasBias ? [w.tensor('bias', [outputs], { like })] : [];
  const y = 'scales' in weight ? integerProduct(graph, flat, weight, bias) : floatProduct(graph, flat, weight, bias);
  return rows.length === 1 ? y : graph.reshape(y, [...rows, outputs]);
}

// x: [R, I]  weight: [O, I]  ->  [R, O]
function floatProduct(graph: Graph, x: Value, weight: Value, bias: readonly Value[]): Value {
  const shape = [x.shape[0] ?? 1, weight.shape[0] ?? 1];
  return graph.node('Gemm', [x, weight, ...bias], shape, { attributes: { transB: 1 } });
}

/**
 * x times a matrix in 8 bits. x is rounded to 256 steps from its smallest number to its largest.
 * x: [R, I], float32  matrix: [I, O]  scales: [O]  ->  [R, O]
 * https://github.com/microsoft/onnxruntime/blob/v1.30.0/docs/ContribOperators.md#com.microsoft.DynamicQuantizeMatMul
 */
function integerProduct(
  graph: Graph,
  x: Value,
  { matrix, scales }: { readonly matrix: Value; readonly scales: Value },
  bias: readonly Value[],
): Value {
  const shape = [x.shape[0] ?? 1, scales.shape[0] ?? 1];
  const inputs = [x, matrix, scales, undefined, ...bias];
  return graph.node('DynamicQuantizeMatMul', inputs, shape, { domain: 'com.microsoft' });
}

/** Widths that CUDA's BiasAdd takes. */
export const BIAS_ADD_WIDTHS: readonly number[] = [320, 640, 1280];

// x: [..., I]  y: [..., O]  ->  y + a linear layer of x
export function addLinear(w: Scope, y: Value, x: Value): Value {
  const { graph } = w;
  const outputs = fixedWidth(w.path, y);
  if (!isFused(graph, 'biasAdd') || !BIAS_ADD_WIDTHS.includes(outputs)) return add(graph, linear(w, x, outputs), y);
  // The op wants three dimensions.
  const rows = [1, product(y.shape.slice(0, -1)), outputs];
  const [unbiased, bias] = linearAndBias(w, x, outputs);
  const inputs = [graph.reshape(unbiased, rows), bias, graph.reshape(y, rows)];
  return graph.reshape(graph.node('BiasAdd', inputs, rows, { domain: 'com.microsoft' }), y.shape);
}

// x: [..., I]  ->  GELU of a linear layer by its tanh approximation, [..., O]
export function linearGeluTanh(w: Scope, x: Value, outputs: number): Value {
  const { graph } = w;
  if (!isFused(graph, 'biasGelu')) return geluTanh(graph, linear(w, x, outputs));
  const [unbiased, bias] = linearAndBias(w, x, outputs);
  return graph.node('FastGelu', [unbiased, bias], unbiased.shape, { domain: 'com.microsoft' });
}

/** A linear layer without its bias, and the bias, for an op that adds it. */
function linearAndBias(w: Scope, x: Value, outputs: number): [Value, Value] {
  return [linear(w, x, outputs, { bias: false }), w.tensor('bias', [outputs], { like: x })];
}

interface Conv2dOptions {
  readonly kernel?: number;
  readonly stride?: number;
  /** Zeros at the top, left, bottom and right. Default: what keeps the size. */
  readonly pads?: readonly [number, number, number, number];
}

/** Widths that CUDA's BiasSplitGelu has a kernel for. */
export const GEGLU_WIDTHS: readonly number[] = [1280, 2560, 5120];

// x: [..., I] -> [..., O], the first half of a linear layer times GELU of the second (GEGLU)
export function geglu(w: Scope, x: Value, outputs: number): Value {
  const { graph } = w;
  if (isFused(graph, 'geglu') && GEGLU_WIDTHS.includes(outputs)) {
    const rows = product(x.shape.slice(0, -1));
    // The op wants three dimensions.
    const [unbiased, bias] = linearAndBias(w, x, 2 * outputs);
    const both = graph.reshape(unbiased, [1, rows, 2 * outputs]);
    const gated = graph.node('BiasSplitGelu', [both, bias], [1, rows, outputs], { domain: 'com.microsoft' });
    return graph.reshape(gated, [...x.shape.slice(0, -1), outputs]);
  }
  const [value, gate] = chunk2(graph, linear(w, x, 2 * outputs));
  return mul(graph, value, gelu(graph, gate));
}

// x: [B, C, H, W]  ->  [B, O, H, W], halved with stride 2.
export function conv2d(w: Scope, x: Value, outputs: number, options: Conv2dOptions = {}): Value {
  const [batch, channels, height, width] = rank4(w.path, x);
  const { kernel = 3, stride = 1 } = options;
  const pad = (kernel - 1) / 2;
  const pads = options.pads ?? [pad, pad, pad, pad];
  const size = stride === 2 ? [halved(height), halved(width)] : [height, width];
  const like = x;
  const weight = w.tensor('weight', [outputs, channels, kernel, kernel], { like });
  return w.graph.node('Conv', [x, weight, w.tensor('bias', [outputs], { like })], [batch, outputs, ...size], {
    attributes: { kernel_shape: [kernel, kernel], strides: [stride, stride], pads },
  });
}

interface GroupNormOptions {
  readonly groups: number;
  readonly eps: number;
}

// x: [B, C, H, W]; statistics over each group of channels and all pixels.
export function groupNorm(w: Scope, x: Value, options: GroupNormOptions): Value {
  return isNormFused(w, x, options) ? fusedGroupNorm(w, x, options, 'none') : plainGroupNorm(w, x, options);
}

/** SiLU of a group norm. */
export function groupNormSilu(w: Scope, x: Value, options: GroupNormOptions): Value {
  if (isNormFused(w, x, options)) return fusedGroupNorm(w, x, options, 'silu');
  return silu(w.graph, plainGroupNorm(w, x, options));
}

function isFused({ dialect }: Graph, fusion: Fusion): boolean {
  return dialect.fusions?.includes(fusion) ?? false;
}

/** The kernel reads two channels of a group at a time, and sums at most 32 groups: group_norm_impl.cu. */
function isNormFused(w: Scope, x: Value, { groups }: GroupNormOptions): boolean {
  const [, channels] = rank4(w.path, x);
  return isFused(w.graph, 'groupNorm') && groups <= 32 && channels % (2 * groups) === 0;
}

/**
 * The op takes channels last, and so does the runtime where it convolves: the transpositions of neighbours cancel each other.
 * https://github.com/microsoft/onnxruntime/blob/v1.30.0/docs/ContribOperators.md#com.microsoft.GroupNorm
 */
function fusedGroupNorm(w: Scope, x: Value, { groups, eps }: GroupNormOptions, activation: 'none' | 'silu'): Value {
  const { graph } = w;
  const [batch, channels, height, width] = rank4(w.path, x);
  const pixels = transpose(graph, x, [0, 2, 3, 1], [batch, height, width, channels]);
  const wide = (key: string) => graph.wide(w.tensor(key, [channels], { like: x }));
  const normal = graph.node('GroupNorm', [pixels, wide('weight'), wide('bias')], pixels.shape, {
    domain: 'com.microsoft',
    attributes: { groups, epsilon: { float: eps }, activation: activation === 'silu' ? 1 : 0, channels_last: 1 },
  });
  return transpose(graph, normal, [0, 3, 1, 2], x.shape);
}

function plainGroupNorm(w: Scope, x: Value, { groups, eps }: GroupNormOptions): Value {
  const { graph } = w;
  const [batch, channels, height, width] = rank4(w.path, x);
  if (channels % groups !== 0) throw new Error(`${w.path}: ${channels} channels do not divide into ${groups} groups`);
  const normal = aroundBf16(graph, x, (input) => {
    const ones = graph.constant(new Float32Array(groups).fill(1), [groups], input.type);
    const zeros = graph.constant(new Float32Array(groups), [groups], input.type);
    const rows = graph.reshape(input, [batch, groups, product([channels / groups, height, width])]);
    const attributes = { epsilon: { float: eps } };
    const normed = graph.node('InstanceNormalization', [rows, ones, zeros], rows.shape, { attributes });
    return graph.reshape(normed, x.shape);
  });
  const perChannel = { view: [channels, 1, 1], like: x };
  const scaled = mul(graph, normal, w.tensor('weight', [channels], perChannel));
  return add(graph, scaled, w.tensor('bias', [channels], perChannel));
}

// x: [..., C]; statistics over the last axis.
export function layerNorm(w: Scope, x: Value, { eps }: { eps: number }): Value {
  const channels = fixedWidth(w.path, x);
  const like = x;
  const inputs = [x, w.tensor('weight', [channels], { like }), w.tensor('bias', [channels], { like })];
  return w.graph.node('LayerNormalization', inputs, x.shape, { attributes: { axis: -1, epsilon: { float: eps } } });
}

// x: [..., C]; statistics over the last axis, without weights.
export function plainLayerNorm(graph: Graph, x: Value, { eps }: { eps: number }): Value {
  const channels = fixedWidth('layer norm', x);
  const inputs = [x, graph.constant(new Float32Array(channels).fill(1), [channels], x.type)];
  return graph.node('LayerNormalization', inputs, x.shape, { attributes: { axis: -1, epsilon: { float: eps } } });
}

// x: [..., C]; divided by the root of its mean square over the last axis.
export function rmsNorm(w: Scope, x: Value, { eps }: { eps: number }): Value {
  const channels = fixedWidth(w.path, x);
  const attributes = { axis: -1, epsilon: { float: eps } };
  const inputs = [x, w.tensor('weight', [channels], { like: x })];
  return w.graph.node('SimplifiedLayerNormalization', inputs, x.shape, { attributes });
}

export function silu(graph: Graph, x: Value): Value {
  return mul(graph, x, graph.node('Sigmoid', [x], x.shape));
}

/** The exact GELU, by the error function. */
export function gelu(graph: Graph, x: Value): Value {
  return graph.node('Gelu', [x], x.shape);
}

/** GELU by its tanh approximation. */
export function geluTanh(graph: Graph, x: Value): Value {
  return graph.node('Gelu', [x], x.shape, { attributes: { approximate: 'tanh' } });
}

/** x * sigmoid(1.702 x), the approximation CLIP ViT-L was trained with. */
export function quickGelu(graph: Graph, x: Value): Value {
  return graph.node('QuickGelu', [x], x.shape, { domain: 'com.microsoft', attributes: { alpha: { float: 1.702 } } });
}

/**
 * softmax(factor q kᵀ + mask) v over `heads` heads.
 * q: [B, L, heads*D]  k, v: [B, S, heads*D]  mask: broadcasts to [B, heads, L, S], added  ->  [B, L, heads*D]
 */
export function attention(graph: Graph, { q, k, v, heads, mask, factor }: AttentionInputs): Value {
  const [batch, length, width] = q.shape;
  const source = k.shape[1];
  if (batch === undefined || length === undefined || source === undefined || typeof width !== 'number') {
    throw new Error(`attention over ${q.name} ${formatShape(q.shape)} and ${k.name} ${formatShape(k.shape)}`);
  }
  if (width % heads !== 0) throw new Error(`attention: ${width} channels do not divide into ${heads} heads`);
  if (graph.dialect.attention === 'fused') {
    return graph.node('MultiHeadAttention', [q, k, v, undefined, undefined, mask], q.shape, {
      domain: 'com.microsoft',
      attributes: { num_heads: heads, ...(factor !== undefined && { scale: { float: factor } }) },
    });
  }
  const dim = width / heads;
  const split = (x: Value, tokens: Shape[number], perm: readonly number[], shape: Shape) =>
    transpose(graph, graph.reshape(x, [batch, tokens, heads, dim]), perm, shape);
  const queries = split(
    scale(graph, q, factor ?? 1 / Math.sqrt(dim)),
    length,
    [0, 2, 1, 3],
    [batch, heads, length, dim],
  );
  const keys = split(k, source, [0, 2, 3, 1], [batch, heads, dim, source]);
  const values = split(v, source, [0, 2, 1, 3], [batch, heads, source, dim]);
  // A mask is of a text, which is short.
  const isChunked = graph.dialect.attention === 'chunked' && mask === undefined;
  const mixed = isChunked ? mixInChunks(graph, queries, keys, values) : mix(graph, queries, keys, values, mask);
  return graph.reshape(transpose(graph, mixed, [0, 2, 1, 3], [batch, length, heads, dim]), q.shape);
}

// queries: [B, H, L, D]  keys: [B, H, D, S]  values: [B, H, S, D]  ->  [B, H, L, D]
function mix(graph: Graph, queries: Value, keys: Value, values: Value, mask?: Value): Value {
  let scores = graph.node('MatMul', [queries, keys], [...queries.shape.slice(0, 3), keys.shape[3] ?? 0]);
  if (mask !== undefined) scores = add(graph, scores, mask);
  const weights = graph.node('Softmax', [scores], scores.shape, { attributes: { axis: -1 } });
  return graph.node('MatMul', [weights, values], queries.shape);
}

/** Scores that a chunk of queries may have: 64 MiB of float32. WebGPU binds buffers of 128 MiB at least. */
const CHUNK_SCORES = 2 ** 24;

/** The same, as many queries at a time as have at most CHUNK_SCORES scores; the last chunk is filled up with zeros. */
function mixInChunks(graph: Graph, queries: Value, keys: Value, values: Value): Value {
  const [batch = 1, heads = 1, length = 1, dim = 1] = queries.shape;
  const [N, C] = [`chunks(${length})`, `chunk(${length})`];
  const int = (value: number) => graph.constant(BigInt64Array.of(BigInt(value)), [1]);
  const op = (name: string, ...inputs: Value[]) => graph.node(name, inputs, [1]);
  const sizeOf = (x: Value, axis: number) =>
    graph.node('Shape', [x], [1], { type: 'i64', attributes: { start: axis, end: axis + 1 } });
  const tokens = sizeOf(queries, 2);
  const scores = op('Mul', op('Mul', sizeOf(queries, 0), int(Number(heads))), sizeOf(keys, 3));
  // 1. queries of a chunk, at most all; number of chunks; zeros behind the last query
  const size = op('Min', op('Max', op('Div', int(CHUNK_SCORES), scores), int(1)), tokens);
  const count = op('Div', op('Sub', op('Add', tokens, size), int(1)), size);
  const missing = op('Sub', op('Mul', size, count), tokens);
  // 2. chunks along a first axis: [N, B, H, C, D]
  const pads = graph.node('Concat', [int(0), int(0), int(0), int(0), int(0), int(0), missing, int(0)], [8], {
    attributes: { axis: 0 },
  });
  const padded = aroundBf16(graph, queries, (x) => graph.node('Pad', [x, pads], [batch, heads, `${N}*${C}`, dim]));
  const target = graph.node('Concat', [graph.shapeValue([batch, heads]), count, size, int(Number(dim))], [5], {
    attributes: { axis: 0 },
  });
  const cut = graph.node('Reshape', [padded, target], [batch, heads, N, C, dim]);
  const first = transpose(graph, cut, [2, 0, 1, 3, 4], [N, batch, heads, C, dim]);
  // 3. each by itself, and side by side again without the zeros
  const mixed = graph.scan(first, (body, chunk) => mix(body, chunk, keys, values));
  const back = transpose(graph, mixed, [1, 2, 0, 3, 4], [batch, heads, N, C, dim]);
  const rows = graph.reshape(back, [batch, heads, `${N}*${C}`, dim]);
  return graph.node('Slice', [rows, int(0), tokens, int(2)], queries.shape);
}

export interface AttentionInputs {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
  readonly heads: number;
  readonly mask?: Value;
  /** What scores are multiplied by. Omitted: 1 / sqrt(D). */
  readonly factor?: number;
}

export function transpose(graph: Graph, x: Value, perm: readonly number[], shape: Shape): Value {
  return graph.node('Transpose', [x], shape, { attributes: { perm } });
}

export function concat(graph: Graph, values: readonly Value[], axis: number): Value {
  const [first, ...rest] = values;
  if (first === undefined) throw new Error('concat of nothing');
  let size = first.shape[axis];
  for (const value of rest) {
    const other = value.shape[axis];
    const fits = value.shape.every((dim, i) => i === axis || dim === first.shape[i]);
    if (!fits || typeof size !== 'number' || typeof other !== 'number') {
      throw new Error(
        `concat of ${first.name} ${formatShape(first.shape)} and ${value.name} ${formatShape(value.shape)}`,
      );
    }
    size += other;
  }
  const shape = first.shape.map((dim, i) => (i === axis ? (size ?? dim) : dim));
  return graph.node('Concat', values, shape, { attributes: { axis } });
}

/** Two halves of the last axis. */
export function chunk2(graph: Graph, x: Value): [Value, Value] {
  const [a, b] = chunks(graph, x, 2, x.shape.length - 1);
  return [a as Value, b as Value];
}

/** Equal parts of an axis. */
export function chunks(graph: Graph, x: Value, count: number, axis: number): Value[] {
  const size = x.shape[axis];
  if (typeof size !== 'number' || size % count !== 0) {
    throw new Error(`${x.name} ${formatShape(x.shape)} does not divide into ${count} along axis ${axis}`);
  }
  const shape = x.shape.map((dim, i) => (i === axis ? size / count : dim));
  const attributes = { axis, num_outputs: count };
  return graph.nodes('Split', [x], new Array<Shape>(count).fill(shape), { attributes });
}

/** Rows of a table: table [N, C], ids int32 [...] -> [..., C]. */
export function gather(graph: Graph, table: Value, ids: Value): Value {
  return graph.node('Gather', [table, ids], [...ids.shape, ...table.shape.slice(1)], { attributes: { axis: 0 } });
}

const NEAREST = { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' } as const;

/** Nearest neighbour, twice the size. x: [B, C, H, W] -> [B, C, 2H, 2W] */
export function upsample2x(graph: Graph, x: Value): Value {
  const [batch, channels, height, width] = rank4('upsample', x);
  // float32 in every dialect: the type of this input is fixed.
  const scales = graph.constant(Float32Array.of(1, 1, 2, 2), [4], 'f32');
  const shape = [batch, channels, doubled(height), doubled(width)];
  return aroundBf16(graph, x, (input) =>
    graph.node('Resize', [input, undefined, scales], shape, { attributes: NEAREST }),
  );
}

/** Nearest neighbour to the height and width of `target`, as torch's interpolate(size=…) does. */
export function upsampleTo(graph: Graph, x: Value, target: Value): Value {
  const [batch, channels] = rank4('upsample', x);
  const [, , height, width] = rank4('upsample', target);
  const shape = [batch, channels, height, width];
  return aroundBf16(graph, x, (input) =>
    graph.node('Resize', [input, undefined, undefined, graph.shapeValue(shape)], shape, { attributes: NEAREST }),
  );
}

function fixedWidth(where: string, x: Value): number {
  const width = x.shape.at(-1);
  if (typeof width !== 'number') throw new Error(`${where}: ${x.name} ${formatShape(x.shape)} has no fixed width`);
  return width;
}

export function rank4(where: string, x: Value): [Shape[number], number, Shape[number], Shape[number]] {
  const [batch, channels, height, width] = x.shape;
  if (x.shape.length !== 4 || batch === undefined || height === undefined || width === undefined) {
    throw new Error(`${where}: ${x.name} ${formatShape(x.shape)} must have four dimensions`);
  }
  if (typeof channels !== 'number')
    throw new Error(`${where}: ${x.name} ${formatShape(x.shape)} has no fixed channels`);
  return [batch, channels, height, width];
}
