/** Ops that providers were seen to compute wrongly or coarsely without an error, run once on the device and once on the host. */

import type { ComputeType, Dialect, Fusion } from '../graph/dialect.js';
import { Graph, type Value } from '../graph/graph.js';
import { addLinear, attention, geglu, groupNorm, groupNormSilu, linearGeluTanh } from '../graph/ops.js';
import { type TensorOptions, Weights } from '../graph/weights.js';
import { TorchCpuGenerator } from '../random/torch-cpu.js';
import { elementCount } from '../std/element-count.js';
import { createSession, type Feed, type SessionDevice } from './session.js';

/** WebGPU has one program below 32 tokens and another from there on. */
const TOKENS = [32, 128] as const;
/** CLIP, UMT5 and SDXL; ViT-H; WAN; the VAEs of WAN and SDXL, which have one head. */
const HEAD_WIDTHS = [64, 80, 128, 384, 512] as const;
const HEADS = 2;
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

/** True if the device computes fused attention in this type as the host does, at every width of a head. */
export async function isFusedAttentionRight(device: SessionDevice, compute: ComputeType): Promise<boolean> {
  const dialect = { attention: 'fused', compute } as const;
  const [first, ...others] = TOKENS.flatMap((tokens) => HEAD_WIDTHS.map((width) => attentionProbe(tokens, width)));
  const areNear = (probes: readonly Probe[]) => areRight(device, dialect, probes, ATTENTION_TOLERANCE[compute]);
  // Where one is wrong the others are not waited for: the programs of some adapters take long to compile.
  return first !== undefined && (await areNear([first])) && areNear(others);
}

function attentionProbe(tokens: number, width: number): Probe {
  const shape = [1, tokens, HEADS * width];
  const feeds = { q: noise(1, shape), k: noise(2, shape), v: noise(3, shape) };
  const expected = attentionOnHost(feeds.q.data, feeds.k.data, feeds.v.data, { tokens, width });
  return probeOf(feeds, (graph, { q, k, v }) => attention(graph, { q, k, v, heads: HEADS }), expected);
}

/** True if long sums on the device, of a linear layer and of a convolution, are near enough to the host's. */
export function areSumsRight(device: SessionDevice, compute: ComputeType): Promise<boolean> {
  const rows = 8;
  const linear = { a: noise(1, [rows, LONGEST_SUM]), b: noise(2, [rows, LONGEST_SUM]) };
  // One pixel of an image of 3 x 3 without padding: a sum over all weights, for each of the outputs.
  const conv = { x: noise(3, [1, CHANNELS, 3, 3]), weight: noise(4, [rows, CHANNELS, 3, 3]) };
  const probes = [
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
  return areRight(device, { attention: 'decomposed', compute }, probes, SUM_TOLERANCE[compute]);
}

/** Norm of SDXL's first block; linear layers of its second. */
const NORM = { channels: 320, groups: 32, eps: 1e-5, side: 16 } as const;
const LINEAR = { channels: 640, tokens: 128 } as const;

/** The fused ops, of these, that give on the device what their plain spelling gives there. */
export async function rightFusions(
  device: SessionDevice,
  compute: ComputeType,
  candidates: readonly Fusion[],
): Promise<readonly Fusion[]> {
  const right: Fusion[] = [];
  for (const fusion of candidates) {
    const [plain, fused] = [
      await runFusion(device, compute, fusion, []),
      await runFusion(device, compute, fusion, [fusion]),
    ];
    if (plain !== undefined && isNear(fused, plain, SUM_TOLERANCE[compute])) right.push(fusion);
  }
  return right;
}

/** Layers with an op that may be fused. */
const fusionProbes: Readonly<Record<Fusion, (w: NoiseWeights) => Value>> = {
  groupNorm: (w) => {
    const { channels, side, ...options } = NORM;
    const x = w.input('x', [2, channels, side, side]);
    return groupNorm(w.root.at('second'), groupNormSilu(w.root.at('first'), x, options), options);
  },
  geglu: (w) => geglu(w.root, tokensOf(w), 4 * LINEAR.channels),
  biasAdd: (w) => addLinear(w.root, tokensOf(w), tokensOf(w, 'more')),
  biasGelu: (w) => linearGeluTanh(w.root, tokensOf(w), 4 * LINEAR.channels),
};

function tokensOf(w: NoiseWeights, name = 'tokens'): Value {
  return w.input(name, [LINEAR.tokens, LINEAR.channels]);
}

/** Such a layer over noise. */
async function runFusion(
  device: SessionDevice,
  compute: ComputeType,
  fusion: Fusion,
  fusions: readonly Fusion[],
): Promise<Float32Array | undefined> {
  const graph = new Graph('op-probe', { attention: 'fused', compute, fusions });
  const w = new NoiseWeights(graph);
  graph.output('result', fusionProbes[fusion](w));
  return (await runOnce(device, graph, w.feeds))?.result;
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
  const feeds: Record<string, Feed> = {};
  for (const [i, probe] of probes.entries()) {
    const inputs: Record<string, Value> = {};
    for (const [name, feed] of Object.entries<Feed>(probe.feeds)) {
      feeds[`${name}${i}`] = feed;
      inputs[name] = graph.floatInput(`${name}${i}`, feed.shape);
    }
    graph.output(`result${i}`, probe.build(graph, inputs));
  }
  const outputs = await runOnce(device, graph, feeds);
  return probes.every(({ expected }, i) => isNear(outputs?.[`result${i}`], expected, tolerance));
}

/** A provider without a kernel is as good as one that computes wrongly: undefined. */
async function runOnce(
  device: SessionDevice,
  graph: Graph,
  feeds: Readonly<Record<string, Feed>>,
): Promise<Readonly<Record<string, Float32Array>> | undefined> {
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
  for (let head = 0; head < HEADS; head += 1) {
    const at = (token: number) => (token * HEADS + head) * width;
    for (let t = 0; t < tokens; t += 1) {
      const weights = Array.from({ length: tokens }, (_, s) => {
        let score = 0;
        for (let d = 0; d < width; d += 1) score += (q[at(t) + d] ?? 0) * (k[at(s) + d] ?? 0);
        return Math.exp(score / Math.sqrt(width));
      });
      const sum = weights.reduce((total, weight) => total + weight, 0);
      for (const [s, weight] of weights.entries()) {
        for (let d = 0; d < width; d += 1) {
          mixed[at(t) + d] = (mixed[at(t) + d] ?? 0) + (weight / sum) * (v[at(s) + d] ?? 0);
        }
      }
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
