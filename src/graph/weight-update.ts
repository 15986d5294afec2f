import { formatShape } from '../std/format-shape.js';
import type { StoredType, TensorRecord } from '../weights/safetensors.js';
import type { Graph, Value } from './graph.js';
import { sameShape } from './shape.js';
import { storedTensor } from './stored-tensor.js';

/** A LoRA's addition to one weight. */
export type WeightUpdate = LowRankUpdate | DifferenceUpdate;

/** scale * up * down. Hu et al., arXiv:2106.09685, section 4.1. */
export interface LowRankUpdate {
  readonly kind: 'low-rank';
  /** [r, I], or of a convolution [r, I, k, k] */
  readonly down: StoredFloats;
  /** [O, r], or of a convolution [O, r, 1, 1] */
  readonly up: StoredFloats;
  /** weight * alpha / r */
  readonly scale: number;
  /** Name in messages. */
  readonly name: string;
}

/** scale * difference, of any weight, norm or bias. */
export interface DifferenceUpdate {
  readonly kind: 'difference';
  /** A tensor of the weight's shape. */
  readonly difference: StoredFloats;
  readonly scale: number;
  /** Name in messages. */
  readonly name: string;
}

export interface StoredFloats extends TensorRecord {
  readonly dtype: StoredType;
}

/** The reason why an update does not fit a weight; undefined where it fits. */
export function updateProblem(update: WeightUpdate, shape: readonly number[]): string | undefined {
  if (update.kind === 'low-rank') return lowRankProblem(update, shape);
  const own = update.difference.shape;
  if (sameShape(own, shape)) return undefined;
  return `${update.name}: its difference is ${formatShape(own)}, the weight is ${formatShape(shape)}`;
}

/** weight + update, folded by the runtime while it loads: a step does not pay for it. */
export function addUpdate(graph: Graph, weight: Value, update: WeightUpdate): Value {
  return update.kind === 'low-rank' ? addLowRank(graph, weight, update) : addDifference(graph, weight, update);
}

function lowRankProblem({ down, up, name }: LowRankUpdate, shape: readonly number[]): string | undefined {
  const [rank = 0, ...from] = down.shape;
  const [outputs = 0, rankOfUp = 0, ...kernel] = up.shape;
  if (rank !== rankOfUp) return `${name}: its two factors have the ranks ${rank} and ${rankOfUp}`;
  const [wantedOutputs = 0, ...wanted] = shape;
  const fits = outputs === wantedOutputs && count(from) === count(wanted) && from[0] === wanted[0];
  if (fits && kernel.every((size) => size === 1)) return undefined;
  return `${name}: its factors make ${formatShape([outputs, ...from])}, the weight is ${formatShape(shape)}`;
}

function addLowRank(graph: Graph, weight: Value, { down, up, scale, name }: LowRankUpdate): Value {
  const [rank = 0, ...from] = down.shape;
  const [outputs = 0] = up.shape;
  const columns = count(from);
  const factor = (record: StoredFloats, shape: readonly number[], which: string) =>
    graph.cast(storedTensor(graph, `${name}.${which}`, record.dtype, shape, record), weight.type);
  const factors = [factor(up, [outputs, rank], 'up'), factor(down, [rank, columns], 'down')];
  const update = graph.node('Gemm', factors, [outputs, columns], { attributes: { alpha: { float: scale } } });
  return graph.node('Add', [weight, graph.reshape(update, weight.shape)], weight.shape);
}

function addDifference(graph: Graph, weight: Value, { difference, scale, name }: DifferenceUpdate): Value {
  const shape = weight.shape.map(Number);
  const stored = storedTensor(graph, `${name}.difference`, difference.dtype, shape, difference);
  const factor = graph.constant(Float32Array.of(scale), [1], weight.type);
  const scaled = graph.node('Mul', [graph.cast(stored, weight.type), factor], shape);
  return graph.node('Add', [weight, scaled], shape);
}

function count(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}
