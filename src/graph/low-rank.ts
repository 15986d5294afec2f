import { formatShape } from '../std/format-shape.js';
import type { FloatType, TensorRecord } from '../weights/safetensors.js';
import type { Graph, Value } from './graph.js';
import { storedTensor } from './stored-tensor.js';

/** The update of one weight by a LoRA: scale * up * down. Hu et al., arXiv:2106.09685, section 4.1. */
export interface LowRankUpdate {
  /** [r, I], or of a convolution [r, I, k, k] */
  readonly down: LowRankFactor;
  /** [O, r], or of a convolution [O, r, 1, 1] */
  readonly up: LowRankFactor;
  /** weight * alpha / r */
  readonly scale: number;
  /** Name in messages. */
  readonly name: string;
}

export interface LowRankFactor extends TensorRecord {
  readonly dtype: FloatType;
}

/** The reason why an update does not fit a weight; undefined where it fits. */
export function lowRankProblem({ down, up, name }: LowRankUpdate, shape: readonly number[]): string | undefined {
  const [rank = 0, ...from] = down.shape;
  const [outputs = 0, rankOfUp = 0, ...kernel] = up.shape;
  if (rank !== rankOfUp) return `${name}: its two factors have the ranks ${rank} and ${rankOfUp}`;
  const [wantedOutputs = 0, ...wanted] = shape;
  const fits = outputs === wantedOutputs && count(from) === count(wanted) && from[0] === wanted[0];
  if (fits && kernel.every((size) => size === 1)) return undefined;
  return `${name}: its factors make ${formatShape([outputs, ...from])}, the weight is ${formatShape(shape)}`;
}

/** weight + scale * up * down, folded by the runtime while it loads: a step does not pay for it. */
export function addLowRank(graph: Graph, weight: Value, { down, up, scale, name }: LowRankUpdate): Value {
  const [rank = 0, ...from] = down.shape;
  const [outputs = 0] = up.shape;
  const columns = count(from);
  const factor = (record: LowRankFactor, shape: readonly number[], which: string) =>
    graph.cast(storedTensor(graph, `${name}.${which}`, record.dtype, shape, record), weight.type);
  const factors = [factor(up, [outputs, rank], 'up'), factor(down, [rank, columns], 'down')];
  const update = graph.node('Gemm', factors, [outputs, columns], { attributes: { alpha: { float: scale } } });
  return graph.node('Add', [weight, graph.reshape(update, weight.shape)], weight.shape);
}

function count(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}
