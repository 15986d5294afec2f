import { elementCount } from '../std/element-count.js';
import { formatShape } from '../std/format-shape.js';
import type { StoredType, TensorRecord } from '../weights/safetensors.js';
import type { Graph, Value } from './graph.js';
import { sameShape } from './shape.js';
import { storedTensor } from './stored-tensor.js';

/**
 * What a file adds to one weight [O, I] or [O, I, k, k]: LoRA and its relatives.
 * LoHa and LoKr: https://github.com/KohakuBlueleaf/LyCORIS/blob/main/docs/Algo-Details.md
 */
export type WeightUpdate = LowRankUpdate | HadamardUpdate | KroneckerUpdate | DifferenceUpdate;

interface Update {
  /** Strength times what the file scales by, alpha / rank for example. */
  readonly scale: number;
  /** Name in messages. */
  readonly name: string;
  /** DoRA: the weight with its update gets these lengths (arXiv:2402.09353, section 4). Omitted: it keeps its own. */
  readonly magnitude?: Magnitude | undefined;
}

/** scale * up * down. Hu et al., arXiv:2106.09685, section 4.1. */
export interface LowRankUpdate extends Update {
  readonly kind: 'low-rank';
  readonly product: Product;
}

/** LoHa: scale times the elementwise product of two products. Hyeon-Woo et al., arXiv:2108.06098. */
export interface HadamardUpdate extends Update {
  readonly kind: 'hadamard';
  readonly products: readonly [Product, Product];
}

/** LoKr: scale times the Kronecker product of [a, b] and [O / a, I / b, ...]. */
export interface KroneckerUpdate extends Update {
  readonly kind: 'kronecker';
  readonly factors: readonly [Factor, Factor];
}

/** scale * difference, of any weight, norm or bias. */
export interface DifferenceUpdate extends Update {
  readonly kind: 'difference';
  /** A tensor of the weight's shape. */
  readonly difference: StoredFloats;
}

/** A product of two matrices, stored. */
export interface Product {
  /** [r, I], or of a convolution [r, I, k, k] */
  readonly down: StoredFloats;
  /** [O, r], or of a convolution [O, r, 1, 1] */
  readonly up: StoredFloats;
  /** [r, r', k, k] between up [O, r] and down [r', I]: Tucker decomposition of a convolution. Omitted: none. */
  readonly core?: StoredFloats | undefined;
  /** `up` is stored as [r, O]. */
  readonly isUpTransposed?: boolean;
}

/** A matrix that is stored whole, or as a product. */
export type Factor = StoredFloats | Product;

export interface Magnitude {
  /** A number for each output, or for each input. */
  readonly lengths: StoredFloats;
  readonly of: 'outputs' | 'inputs';
}

export interface StoredFloats extends TensorRecord {
  readonly dtype: StoredType;
}

/** The tensors of an update. */
export function storedOf(update: WeightUpdate): readonly StoredFloats[] {
  const ofFactor = (factor: Factor) =>
    isProduct(factor) ? [factor.down, factor.up, ...(factor.core === undefined ? [] : [factor.core])] : [factor];
  const own = update.magnitude === undefined ? [] : [update.magnitude.lengths];
  switch (update.kind) {
    case 'low-rank':
      return [...ofFactor(update.product), ...own];
    case 'hadamard':
      return [...update.products.flatMap(ofFactor), ...own];
    case 'kronecker':
      return [...update.factors.flatMap(ofFactor), ...own];
    case 'difference':
      return [update.difference, ...own];
  }
}

/** The reason why an update does not fit a weight; undefined where it fits. */
export function updateProblem(update: WeightUpdate, shape: readonly number[]): string | undefined {
  const { name, magnitude } = update;
  const problem = shapeProblem(update, shape);
  if (problem !== undefined || magnitude === undefined) return problem;
  const wanted = shape[magnitude.of === 'outputs' ? 0 : 1];
  const own = elementCount(magnitude.lengths.shape);
  return own === wanted ? undefined : `${name}: it has lengths of ${own} ${magnitude.of}, the weight has ${wanted}`;
}

function shapeProblem(update: WeightUpdate, shape: readonly number[]): string | undefined {
  const { name } = update;
  const differs = (made: readonly number[]) =>
    areSame(made, shape)
      ? undefined
      : `${name}: its factors make ${formatShape(made)}, the weight is ${formatShape(shape)}`;
  switch (update.kind) {
    case 'low-rank':
      return productProblem(update.product, name) ?? differs(shapeOf(update.product));
    case 'hadamard':
      return update.products
        .map((product) => productProblem(product, name) ?? differs(shapeOf(product)))
        .find((problem) => problem !== undefined);
    case 'kronecker': {
      const problems = update.factors.map((factor) => (isProduct(factor) ? productProblem(factor, name) : undefined));
      const [[a = 0, b = 0, ...ones] = [], [c = 0, d = 0, ...kernel] = []] = update.factors.map(shapeOf);
      const made = [a * c, b * d, ...(elementCount(kernel) > 1 ? kernel : [])];
      return (
        problems.find((problem) => problem !== undefined) ??
        (elementCount(ones) === 1 ? differs(made) : `${name}: its first factor is ${formatShape([a, b, ...ones])}`)
      );
    }
    case 'difference': {
      const own = update.difference.shape;
      if (sameShape(own, shape)) return undefined;
      return `${name}: its difference is ${formatShape(own)}, the weight is ${formatShape(shape)}`;
    }
  }
}

/** weight + updates, folded by the runtime while it loads: a step does not pay for them. Lengths are those of the weight alone. */
export function addUpdates(graph: Graph, weight: Value, updates: readonly WeightUpdate[]): Value {
  let sum = weight;
  for (const update of updates) {
    const change = changeOf(graph, weight, update);
    const added =
      update.magnitude === undefined ? change : withLengths(graph, weight, change, update, update.magnitude);
    sum = graph.node('Add', [sum, added], weight.shape);
  }
  return sum;
}

/** What an update adds, of the weight's shape. */
function changeOf(graph: Graph, weight: Value, update: WeightUpdate): Value {
  const { scale, name } = update;
  const shape = weight.shape.map(Number);
  const scaled = (value: Value) =>
    graph.node('Mul', [graph.reshape(value, shape), graph.constant(Float32Array.of(scale), [1], weight.type)], shape);
  switch (update.kind) {
    case 'low-rank':
      return graph.reshape(productOf(graph, weight, update.product, name, scale), shape);
    case 'hadamard': {
      const [first, second] = update.products.map((product, i) =>
        productOf(graph, weight, product, `${name}.${i + 1}`, 1),
      ) as [Value, Value];
      return scaled(graph.node('Mul', [first, second], first.shape));
    }
    case 'kronecker': {
      const [first, second] = update.factors.map((factor, i) => {
        const label = `${name}.${i + 1}`;
        const [rows = 0, ...columns] = shapeOf(factor);
        const value = isProduct(factor)
          ? productOf(graph, weight, factor, label, 1)
          : stored(graph, weight, factor, [rows, elementCount(columns)], label);
        return { value, rows, columns: elementCount(columns) };
      }) as [Matrix, Matrix];
      const [{ rows: a, columns: b }, { rows: c, columns: d }] = [first, second];
      const product = graph.node(
        'Mul',
        [graph.reshape(first.value, [a, 1, b, 1]), graph.reshape(second.value, [1, c, 1, d])],
        [a, c, b, d],
      );
      return scaled(product);
    }
    case 'difference':
      return scaled(stored(graph, weight, update.difference, shape, `${name}.difference`));
  }
}

interface Matrix {
  readonly value: Value;
  readonly rows: number;
  readonly columns: number;
}

/** factor * up * down -> [O, I * k * k] */
function productOf(graph: Graph, weight: Value, product: Product, name: string, factor: number): Value {
  const { down, up, core, isUpTransposed = false } = product;
  const [rank, outputs] = isUpTransposed ? [up.shape[0] ?? 0, up.shape[1] ?? 0] : [up.shape[1] ?? 0, up.shape[0] ?? 0];
  const upValue = stored(graph, weight, up, isUpTransposed ? [rank, outputs] : [outputs, rank], `${name}.up`);
  const multiplied = (columns: Value, size: number) =>
    graph.node('Gemm', [upValue, columns], [outputs, size], {
      attributes: { alpha: { float: factor }, ...(isUpTransposed && { transA: 1 }) },
    });
  const [inner = 0, ...from] = down.shape;
  const downValue = stored(graph, weight, down, [inner, elementCount(from)], `${name}.down`);
  if (core === undefined) return multiplied(downValue, elementCount(from));
  const [inputs = 0] = from;
  const kernel = elementCount(core.shape.slice(2));
  // [r, r', k * k] -> [r, k * k, r'] times [r', I] -> [r, I, k * k]
  const coreValue = stored(graph, weight, core, [rank, inner, kernel], `${name}.core`);
  const swap = (value: Value, shape: readonly number[]) =>
    graph.node('Transpose', [value], shape, { attributes: { perm: [0, 2, 1] } });
  const widened = graph.node('MatMul', [swap(coreValue, [rank, kernel, inner]), downValue], [rank, kernel, inputs]);
  return multiplied(graph.reshape(swap(widened, [rank, inputs, kernel]), [rank, inputs * kernel]), inputs * kernel);
}

/** What brings the weight to the weight and its change in the lengths of a file. */
function withLengths(
  graph: Graph,
  weight: Value,
  change: Value,
  { name }: WeightUpdate,
  { lengths, of }: Magnitude,
): Value {
  const [outputs = 0, inputs = 0, ...kernel] = weight.shape.map(Number);
  const shape = [outputs, inputs, elementCount(kernel)];
  const column = of === 'outputs' ? [outputs, 1, 1] : [1, inputs, 1];
  const axes = of === 'outputs' ? [1n, 2n] : [0n, 2n];
  const turned = graph.reshape(graph.node('Add', [weight, change], weight.shape), shape);
  const own = graph.node('ReduceL2', [turned, graph.constant(BigInt64Array.from(axes), [2])], column, {
    attributes: { keepdims: 1 },
  });
  const wanted = stored(graph, weight, lengths, column, `${name}.magnitude`);
  const factor = graph.node('Div', [wanted, own], column);
  const stretched = graph.reshape(graph.node('Mul', [turned, factor], shape), weight.shape);
  return graph.node('Sub', [stretched, weight], weight.shape);
}

function stored(graph: Graph, weight: Value, record: StoredFloats, shape: readonly number[], name: string): Value {
  return graph.cast(storedTensor(graph, name, record.dtype, shape, record), weight.type);
}

function isProduct(factor: Factor): factor is Product {
  return 'down' in factor;
}

/** Shape of the matrix or kernel that a factor is. */
function shapeOf(factor: Factor): readonly number[] {
  if (!isProduct(factor)) return factor.shape;
  const { down, up, core, isUpTransposed } = factor;
  const [, ...from] = down.shape;
  return [
    up.shape[isUpTransposed ? 1 : 0] ?? 0,
    ...(core === undefined ? from : [from[0] ?? 0, ...core.shape.slice(2)]),
  ];
}

function productProblem({ down, up, core, isUpTransposed = false }: Product, name: string): string | undefined {
  const [rank = 0, rankOfUp = 0] = [down.shape[0], up.shape[isUpTransposed ? 0 : 1]];
  if (core !== undefined && !sameShape(core.shape.slice(0, 2), [rankOfUp, rank]))
    return `${name}: its factors have the ranks ${rankOfUp} and ${rank}, its core is ${formatShape(core.shape)}`;
  if (core === undefined && rank !== rankOfUp) return `${name}: its two factors have the ranks ${rank} and ${rankOfUp}`;
  const kernel = up.shape.slice(2);
  if (kernel.every((size) => size === 1)) return undefined;
  return `${name}: its second factor is ${formatShape(up.shape)}, must be a matrix`;
}

/** A matrix is a kernel of one pixel, too, and a kernel may be stored flat: [O, I * k * k]. */
function areSame(made: readonly number[], shape: readonly number[]): boolean {
  const [outputs, ...from] = made;
  const [wantedOutputs, ...wanted] = shape;
  return (
    outputs === wantedOutputs &&
    elementCount(from) === elementCount(wanted) &&
    (from.length === 1 || from[0] === wanted[0])
  );
}
