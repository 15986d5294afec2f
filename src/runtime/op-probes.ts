/** Ops that providers were seen to compute wrongly or coarsely without an error, run once on the device and once on the host. */

import type { ComputeType, Dialect, Fusion } from '../graph/dialect.js';
import { Graph, type Value } from '../graph/graph.js';
import {
  addLinear,
  attention,
  BIAS_ADD_WIDTHS,
  concat,
  GEGLU_WIDTHS,
  geglu,
  groupNorm,
  groupNormSilu,
  linearGeluTanh,
} from '../graph/ops.js';
import { type Scope, type TensorOptions, Weights } from '../graph/weights.js';
import { TorchCpuGenerator } from '../random/torch-cpu.js';
import { elementCount } from '../std/element-count.js';
import { createSession, type Feed, type SessionDevice } from './session.js';

/** WebGPU has one program below 32 tokens and another from there on. */
const TOKENS = [32, 128] as const;
/** CLIP, UMT5 and SDXL; ViT-H; WAN; the VAEs of WAN and SDXL, which have one head. */
const HEAD_WIDTHS = [64, 80, 128, 384, 512] as const;
const HEADS = 2;
const HEADS_OF_PROBES = TOKENS.flatMap((tokens) => HEAD_WIDTHS.map((width) => ({ tokens, width })));
/** The longest sum of a linear layer in CLIP ViT-bigG and in SDXL's transformer blocks. */
const LONGEST_SUM = 5120;
/** Channels of SDXL's innermost convolutions. */
const CHANNELS = 1280;
/**
 * Largest error over the largest value. Wrong attention was off by 0.1 to 1.5, right one by 4e-3 in float16. A convolution of 1280
 * channels with float16 sums is off by 0.015 (root of the mean square, lavapipe), rounding alone by less than 0.01 in bfloat16.
 */
const ATTENTION_TOLERANCE: Readonly<Record<ComputeType, number>> = { f32: 1e-3, f16: 0.02, bf16: 0.03 };
const SUM_TOLERANCE: Readonly<Record<ComputeType, number>> = { f32: 1e-3, f16: 0.06, bf16: 0.03 };

/** What a device computes as it should in one type. */
export interface RightOps {
  readonly attention: boolean;
  readonly sums: boolean;
  /** Those that give what their plain spelling gives. */
  readonly fusions: readonly Fusion[];
}

/**
 * All ops at once, in one session for plain ones and one for fused ones: on a card each session takes about half a second.
 * @returns undefined where one of the two does not run, which says nothing of the ops that the provider has
 */
export async function rightOps(
  device: SessionDevice,
  compute: ComputeType,
  candidates: readonly Fusion[],
): Promise<RightOps | undefined> {
  const [ofAttention, ofSums] = [HEADS_OF_PROBES.map(attentionProbe), sumProbes()];
  const graph = new Graph('op-probe', { attention: 'fused', compute });
  const feeds = addProbes(graph, [...ofAttention, ...ofSums]);
  const plain = await runOnce(device, graph, { ...feeds, ...addLayers(graph, candidates) });
  const fused = candidates.length === 0 ? {} : await runFused(device, compute, candidates);
  if (plain === undefined || fused === undefined) return undefined;
  const areNear = (probes: readonly Probe[], from: number, tolerance: number) =>
    probes.every(({ expected }, i) => isNear(plain[`result${from + i}`], expected, tolerance));
  return {
    attention: areNear(ofAttention, 0, ATTENTION_TOLERANCE[compute]),
    sums: areNear(ofSums, ofAttention.length, SUM_TOLERANCE[compute]),
    fusions: candidates.filter((name) => areAlike(name, plain, fused, compute)),
  };
}

/** True if the device computes fused attention in this type as the host does, at every width of a head. */
export async function isFusedAttentionRight(device: SessionDevice, compute: ComputeType): Promise<boolean> {
  const dialect = { attention: 'fused', compute } as const;
  const [first, ...others] = HEADS_OF_PROBES;
  const areNear = (heads: typeof HEADS_OF_PROBES) =>
    areRight(device, dialect, heads.map(attentionProbe), ATTENTION_TOLERANCE[compute]);
  // Where one is wrong the others are not waited for: the programs of some adapters take long to compile.
  return first !== undefined && (await areNear([first])) && areNear(others);
}

function attentionProbe({ tokens, width }: (typeof HEADS_OF_PROBES)[number]): Probe {
  const shape = [1, tokens, HEADS * width];
  const feeds = { q: noise(1, shape), k: noise(2, shape), v: noise(3, shape) };
  const expected = attentionOnHost(feeds.q.data, feeds.k.data, feeds.v.data, { tokens, width });
  return probeOf(feeds, (graph, { q, k, v }) => attention(graph, { q, k, v, heads: HEADS }), expected);
}

/** True if long sums on the device, of a linear layer and of a convolution, are near enough to the host's. */
export function areSumsRight(device: SessionDevice, compute: ComputeType): Promise<boolean> {
  return areRight(device, { attention: 'decomposed', compute }, sumProbes(), SUM_TOLERANCE[compute]);
}

function sumProbes(): readonly Probe[] {
  const rows = 8;
  const linear = { a: noise(1, [rows, LONGEST_SUM]), b: noise(2, [rows, LONGEST_SUM]) };
  // One pixel of an image of 3 x 3 without padding: a sum over all weights, for each of the outputs.
  const conv = { x: noise(3, [1, CHANNELS, 3, 3]), weight: noise(4, [rows, CHANNELS, 3, 3]) };
  return [
    probeOf(
      linear,
      (graph, { a, b }) => graph.node('Gemm', [a, b], [rows, rows], { attributes: { transB: 1 } }),
      productsOnHost(linear.a.data, linear.b.data, LONGEST_SUM),
    ),
    probeOf(
      conv,
      (graph, { x, weight }) =>
        graph.node('Conv', [x, weight], [1, rows, 1, 1], { attributes: { kernel_shape: [3, 3] } }),
      productsOnHost(conv.x.data, conv.weight.data, CHANNELS * 9),
    ),
  ];
}

/** Norm of SDXL's first block; inputs of linear layers, which are narrow: what is fused lies behind the product. */
const NORM = { channels: 320, groups: 32, eps: 1e-5, side: 16 } as const;
const [ROWS, INPUTS] = [128, 64];

/** The fused ops, of these, that give on the device what their plain spelling gives there. */
export async function rightFusions(
  device: SessionDevice,
  compute: ComputeType,
  candidates: readonly Fusion[],
): Promise<readonly Fusion[]> {
  const right: Fusion[] = [];
  for (const fusion of candidates) {
    const graph = new Graph('op-probe', { attention: 'fused', compute });
    const plain = await runOnce(device, graph, addLayers(graph, [fusion]));
    const fused = await runFused(device, compute, [fusion]);
    if (areAlike(fusion, plain, fused, compute)) right.push(fusion);
  }
  return right;
}

/** True where the results of both spellings have this op's, and they are near each other. */
function areAlike(name: Fusion, plain: Results | undefined, fused: Results | undefined, compute: ComputeType): boolean {
  const expected = plain?.[name];
  return expected !== undefined && isNear(fused?.[name], expected, SUM_TOLERANCE[compute]);
}

/** Layers with an op that may be fused. */
const fusedLayers: Readonly<Record<Fusion, (w: Scope, input: (shape: readonly number[]) => Value) => Value>> = {
  groupNorm: (w, input) => {
    const { channels, side, ...options } = NORM;
    const x = input([2, channels, side, side]);
    return groupNorm(w.at('second'), groupNormSilu(w.at('first'), x, options), options);
  },
  geglu: (w, input) => ofWidths(w, GEGLU_WIDTHS, (layer, width) => geglu(layer, input([ROWS, INPUTS]), width)),
  biasAdd: (w, input) =>
    ofWidths(w, BIAS_ADD_WIDTHS, (layer, width) => addLinear(layer, input([ROWS, width]), input([ROWS, INPUTS]))),
  biasGelu: (w, input) => linearGeluTanh(w, input([ROWS, INPUTS]), 8 * INPUTS),
};

/** A layer of each width, side by side: each has a kernel of its own. */
function ofWidths(w: Scope, widths: readonly number[], layer: (w: Scope, width: number) => Value): Value {
  const layers = widths.map((width) => layer(w.at(width), width));
  return concat(w.graph, layers, 1);
}

/** Results of the layers with these ops, by the name of the op. */
async function runFused(
  device: SessionDevice,
  compute: ComputeType,
  fusions: readonly Fusion[],
): Promise<Results | undefined> {
  const graph = new Graph('op-probe', { attention: 'fused', compute, fusions });
  return runOnce(device, graph, addLayers(graph, fusions));
}

/** Adds such layers over noise, which is the same however they are spelled. @returns what the graph is fed */
function addLayers(graph: Graph, names: readonly Fusion[]): Readonly<Record<string, Feed>> {
  const weights = new NoiseWeights(graph);
  for (const name of names) {
    let inputs = 0;
    const input = (shape: readonly number[]) => weights.input(`${name}.input${inputs++}`, shape);
    graph.output(name, fusedLayers[name](weights.root.at(name), input));
  }
  return weights.feeds;
}

/** Weights of noise: vectors in the graph, as the kernels want them, the rest as inputs of it. */
class NoiseWeights extends Weights {
  readonly feeds: Record<string, Feed> = {};

  constructor(graph: Graph) {
    super(graph, { path: 'noise', tensors: new Map(), metadata: {} });
  }

  input(name: string, shape: readonly number[]): Value {
    this.feeds[name] = noise(Object.keys(this.feeds).length, shape);
    return this.graph.floatInput(name, shape);
  }

  override tensor(key: string, shape: readonly number[], { view = shape }: TensorOptions = {}): Value {
    if (shape.length > 1) return this.input(key, view);
    return this.graph.constant(noise(key.length, shape).data, view);
  }
}

/** Outputs of a session, by name. */
type Results = Readonly<Record<string, Float32Array>>;

interface Probe {
  readonly feeds: Readonly<Record<string, Feed>>;
  /** @param inputs one for each feed */
  build(graph: Graph, inputs: Readonly<Record<string, Value>>): Value;
  readonly expected: Float64Array;
}

function probeOf<Name extends string>(
  feeds: Readonly<Record<Name, Feed>>,
  build: (graph: Graph, inputs: Readonly<Record<Name, Value>>) => Value,
  expected: Float64Array,
): Probe {
  return { feeds, build: (graph, inputs) => build(graph, inputs as Readonly<Record<Name, Value>>), expected };
}

/** All in one session: to open one takes longer on a card than to run it. */
async function areRight(
  device: SessionDevice,
  dialect: Dialect,
  probes: readonly Probe[],
  tolerance: number,
): Promise<boolean> {
  const graph = new Graph('op-probe', dialect);
  const outputs = await runOnce(device, graph, addProbes(graph, probes));
  return probes.every(({ expected }, i) => isNear(outputs?.[`result${i}`], expected, tolerance));
}

/** Adds probes with the results `result0` and so on. @returns what the graph is fed */
function addProbes(graph: Graph, probes: readonly Probe[]): Readonly<Record<string, Feed>> {
  const feeds: Record<string, Feed> = {};
  for (const [i, probe] of probes.entries()) {
    const inputs: Record<string, Value> = {};
    for (const [name, feed] of Object.entries<Feed>(probe.feeds)) {
      feeds[`${name}${i}`] = feed;
      inputs[name] = graph.floatInput(`${name}${i}`, feed.shape);
    }
    graph.output(`result${i}`, probe.build(graph, inputs));
  }
  return feeds;
}

/** A provider without a kernel is as good as one that computes wrongly: undefined. */
async function runOnce(
  device: SessionDevice,
  graph: Graph,
  feeds: Readonly<Record<string, Feed>>,
): Promise<Results | undefined> {
  const session = await createSession(graph, device).catch(() => undefined);
  try {
    return await session?.run(feeds).catch(() => undefined);
  } finally {
    await session?.release();
  }
}

/** @param tolerance largest error over the largest value */
function isNear(actual: Float32Array | undefined, expected: Float64Array | Float32Array, tolerance: number): boolean {
  let largest = 0;
  for (const value of expected) largest = Math.max(largest, Math.abs(value));
  return expected.every((value, i) => Math.abs(value - (actual?.[i] ?? Number.NaN)) <= tolerance * largest);
}

/** Random numbers: sums over smooth ones would level what goes wrong. */
function noise(seed: number, shape: readonly number[]): Feed & { readonly data: Float32Array } {
  const length = elementCount(shape);
  return { data: new TorchCpuGenerator(seed).randn(length), shape };
}

// q, k, v: [T, heads*D] -> [T, heads*D]
function attentionOnHost(
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  { tokens, width }: { readonly tokens: number; readonly width: number },
): Float64Array {
  const mixed = new Float64Array(tokens * HEADS * width);
  const weights = new Float64Array(tokens);
  for (let row = 0; row < tokens * HEADS; row += 1) {
    const [head, query] = [(row % HEADS) * width, row * width];
    let sum = 0;
    for (let s = 0; s < tokens; s += 1) {
      const key = s * HEADS * width + head;
      let score = 0;
      for (let d = 0; d < width; d += 1) score += (q[query + d] ?? 0) * (k[key + d] ?? 0);
      const weight = Math.exp(score / Math.sqrt(width));
      weights[s] = weight;
      sum += weight;
    }
    for (let s = 0; s < tokens; s += 1) {
      const [value, weight] = [s * HEADS * width + head, (weights[s] ?? 0) / sum];
      for (let d = 0; d < width; d += 1) mixed[query + d] = (mixed[query + d] ?? 0) + weight * (v[value + d] ?? 0);
    }
  }
  return mixed;
}

// a: [N, K]  b: [M, K]  ->  [N, M]
function productsOnHost(a: Float32Array, b: Float32Array, sum: number): Float64Array {
  const columns = b.length / sum;
  return Float64Array.from({ length: (a.length / sum) * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns) * sum, (i % columns) * sum];
    let total = 0;
    for (let k = 0; k < sum; k += 1) total += (a[row + k] ?? 0) * (b[column + k] ?? 0);
    return total;
  });
}
