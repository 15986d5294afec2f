/** Ops that providers were seen to compute wrongly or coarsely without an error, run once on the device and once on the host. */

import type { ComputeType, Dialect, Fusion } from '../graph/dialect.js';
import { Graph, type Value } from '../graph/graph.js';
import { attention, geglu, groupNorm, groupNormSilu } from '../graph/ops.js';
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
  for (const tokens of TOKENS) {
    for (const width of HEAD_WIDTHS) {
      const shape = [1, tokens, HEADS * width];
      const feeds = { q: noise(1, shape), k: noise(2, shape), v: noise(3, shape) };
      const expected = attentionOnHost(feeds.q.data, feeds.k.data, feeds.v.data, { tokens, width });
      const build = (graph: Graph, [q, k, v]: readonly Value[]) =>
        q && k && v && attention(graph, { q, k, v, heads: HEADS });
      const probe = { dialect: { attention: 'fused', compute } as const, feeds, build, expected };
      if (!(await isRight(device, probe, ATTENTION_TOLERANCE[compute]))) return false;
    }
  }
  return true;
}

/** True if long sums on the device, of a linear layer and of a convolution, are near enough to the host's. */
export async function areSumsRight(device: SessionDevice, compute: ComputeType): Promise<boolean> {
  const dialect = { attention: 'decomposed', compute } as const;
  const rows = 8;
  const gemm = { a: noise(1, [rows, LONGEST_SUM]), b: noise(2, [rows, LONGEST_SUM]) };
  const products = productsOnHost(gemm.a.data, gemm.b.data, LONGEST_SUM);
  const multiply = (graph: Graph, inputs: readonly Value[]) =>
    graph.node('Gemm', inputs, [rows, rows], { attributes: { transB: 1 } });
  const linear = { dialect, feeds: gemm, build: multiply, expected: products };
  if (!(await isRight(device, linear, SUM_TOLERANCE[compute]))) return false;
  // One pixel of an image of 3 x 3 without padding: a sum over all weights, for each of the outputs.
  const conv = { x: noise(3, [1, CHANNELS, 3, 3]), weight: noise(4, [rows, CHANNELS, 3, 3]) };
  const pixels = productsOnHost(conv.x.data, conv.weight.data, CHANNELS * 9);
  const convolve = (graph: Graph, inputs: readonly Value[]) =>
    graph.node('Conv', inputs, [1, rows, 1, 1], { attributes: { kernel_shape: [3, 3] } });
  return isRight(device, { dialect, feeds: conv, build: convolve, expected: pixels }, SUM_TOLERANCE[compute]);
}

/** Norm of SDXL's first block; gated feed-forward of its second. */
const NORM = { channels: 320, groups: 32, eps: 1e-5, side: 16 } as const;
const GATED = { channels: 640, tokens: 128 } as const;

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

/** A layer with an op that may be fused, over noise. */
function runFusion(
  device: SessionDevice,
  compute: ComputeType,
  fusion: Fusion,
  fusions: readonly Fusion[],
): Promise<Float32Array | undefined> {
  const graph = new Graph('op-probe', { attention: 'fused', compute, fusions });
  const w = new NoiseWeights(graph);
  if (fusion === 'groupNorm') {
    const { channels, side, ...options } = NORM;
    const x = w.input('x', [2, channels, side, side]);
    graph.output('result', groupNorm(w.root.at('second'), groupNormSilu(w.root.at('first'), x, options), options));
  } else {
    const { channels, tokens } = GATED;
    graph.output('result', geglu(w.root, w.input('x', [tokens, channels]), 4 * channels));
  }
  return runOnce(device, graph, w.feeds);
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
  readonly dialect: Dialect;
  readonly feeds: Readonly<Record<string, Feed>>;
  build(graph: Graph, inputs: readonly Value[]): Value | undefined;
  readonly expected: Float64Array;
}

async function isRight(
  device: SessionDevice,
  { dialect, feeds, build, expected }: Probe,
  tolerance: number,
): Promise<boolean> {
  const graph = new Graph('op-probe', dialect);
  const inputs = Object.entries(feeds).map(([name, { shape }]) => graph.floatInput(name, shape));
  const result = build(graph, inputs);
  if (result === undefined) return false;
  graph.output('result', result);
  return isNear(await runOnce(device, graph, feeds), expected, tolerance);
}

/** The output `result`. A provider without a kernel is as good as one that computes wrongly: undefined. */
async function runOnce(
  device: SessionDevice,
  graph: Graph,
  feeds: Readonly<Record<string, Feed>>,
): Promise<Float32Array | undefined> {
  const session = await createSession(graph, device).catch(() => undefined);
  if (session === undefined) return undefined;
  try {
    return (await session.run(feeds).catch(() => undefined))?.result;
  } finally {
    await session.release();
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
