import { elementCount } from '../std/element-count.js';
import { formatShape } from '../std/format-shape.js';
import { type StoredType, storedTypeOf, storedTypes } from '../weights/safetensors.js';
import type { WeightFiles, WeightRecord } from '../weights/weight-files.js';
import type { ExternalRange, Graph, Value } from './graph.js';
import type { OnnxType } from './onnx-proto.js';
import { sameShape } from './shape.js';
import { storedRows, storedTensor } from './stored-tensor.js';
import { addUpdates, updateProblem, type WeightUpdate } from './weight-update.js';

/** Ends of the keys of such numbers, in place of `.weight`. */
const SCALES = ['.scale_weight', '.weight_scale'] as const;

export interface TensorOptions {
  /** The same elements in another shape. */
  readonly view?: readonly number[];
  /** A value whose type the tensor gets. Omitted: the dialect's. */
  readonly like?: Value;
}

/** A weight of a linear layer in 8 bits: [inputs, outputs], and a float32 scale for each output. */
export interface QuantisedLinear {
  readonly matrix: ExternalRange;
  readonly scales: ExternalRange;
}

export interface WeightsOptions {
  /** Other names that files use for a key of ours, tried in order when the key itself is not there. */
  readonly aliases?: (key: string) => readonly string[];
  /** Keys that belong to the format but not to this graph: not reported as spare. */
  readonly unused?: readonly RegExp[];
  /** LoRA: updates of weights, by their keys. */
  readonly updates?: ReadonlyMap<string, readonly WeightUpdate[]>;
  /** Weights of linear layers that are taken in 8 bits, by their keys. One that has updates is not. */
  readonly quantised?: ReadonlyMap<string, QuantisedLinear>;
}

/**
 * The weights of one network, handed to its graph by key. Building the graph is what checks the file: a missing, mis-shaped
 * or wrongly typed tensor is noted and building goes on, so that `problems` lists everything together.
 */
export class Weights {
  readonly #problems: string[] = [];
  readonly #wanted = new Map<string, readonly number[]>();
  readonly #used = new Map<string, WeightRecord>();
  readonly #usedKeys = new Set<string>();
  readonly #narrowed = new Map<string, WeightRecord>();
  readonly #linears = new Map<string, WeightRecord>();
  #isQuantised = false;

  readonly graph: Graph;
  readonly files: WeightFiles;
  readonly options: WeightsOptions;

  constructor(graph: Graph, files: WeightFiles, options: WeightsOptions = {}) {
    this.graph = graph;
    this.files = files;
    this.options = options;
  }

  /** The scope of the whole file. */
  get root(): Scope {
    return new Scope(this, '');
  }

  /** Names and shapes of all tensors that the graph asked for, whether the file has them or not. */
  get wanted(): ReadonlyMap<string, readonly number[]> {
    return this.#wanted;
  }

  /** Elements of all tensors that the graph took. */
  get parameters(): number {
    let count = 0;
    for (const { shape } of this.#used.values()) count += elementCount(shape);
    return count;
  }

  /** Bytes that they take in the file that they are read from. */
  get usedBytes(): number {
    return [...this.#used.values()].reduce((bytes, { length }) => bytes + length, 0);
  }

  /** Paths of the user's files that the weights come from, converted or not. */
  get sources(): readonly string[] {
    const { path, prepare } = this.files;
    return prepare === undefined ? [...new Set([...this.#used.values()].map(({ file }) => file))] : [path];
  }

  /** Tensors of wider types that the graph casts to float16, by their names in the file: their largest values may not fit. */
  get narrowed(): ReadonlyMap<string, WeightRecord> {
    return this.#narrowed;
  }

  /** Weights of linear layers, as their graph asked for them, by key. */
  get linears(): ReadonlyMap<string, WeightRecord> {
    return this.#linears;
  }

  /** True if the graph took a weight in 8 bits. */
  get isQuantised(): boolean {
    return this.#isQuantised;
  }

  /** The storage type that most bytes have; of what is converted before it is used, also the one that it has in the user's file. */
  get storage(): string {
    const bytes = new Map<string, number>();
    for (const { dtype, storedAs, length } of this.#used.values()) {
      const type = storedAs === undefined ? dtype : `${storedAs} as ${dtype}`;
      bytes.set(type, (bytes.get(type) ?? 0) + length);
    }
    return [...bytes].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 'none';
  }

  /** Missing, mis-shaped and wrongly typed tensors, a sentence each. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** Keys that the graph did not ask for. */
  get spare(): readonly string[] {
    const unused = this.options.unused ?? [];
    return [...this.files.tensors.keys()].filter(
      (key) => !this.#usedKeys.has(key) && !unused.some((pattern) => pattern.test(key)),
    );
  }

  has(key: string): boolean {
    return this.#nameOf(key) !== undefined;
  }

  /** [view ?? shape], cast from the file's storage type when the session is built. Updates are added in float32. */
  tensor(key: string, shape: readonly number[], { view = shape, like }: TensorOptions = {}): Value {
    const type = like?.type ?? this.graph.dialect.compute;
    if (type === 'f16') this.#noteNarrowed(key);
    const updates = this.options.updates?.get(key) ?? [];
    const value = this.#stored(key, shape, view, updates.length > 0 ? 'f32' : type);
    const problems = updates.flatMap((update) => updateProblem(update, shape) ?? []);
    this.#problems.push(...problems);
    return this.graph.cast(problems.length > 0 ? value : addUpdates(this.graph, value, updates), type);
  }

  /** The weight of a linear layer in 8 bits; undefined where it is to be taken as it is. */
  quantised(
    key: string,
    shape: readonly [number, number],
  ): { readonly matrix: Value; readonly scales: Value } | undefined {
    const record = this.files.tensors.get(this.#nameOf(key) ?? '');
    if (record !== undefined) this.#linears.set(key, record);
    const layer = this.options.updates?.has(key) ? undefined : this.options.quantised?.get(key);
    if (layer === undefined || this.#find(key, shape) === undefined) return undefined;
    this.#isQuantised = true;
    const [outputs, inputs] = shape;
    return {
      matrix: this.graph.external(`${key}.int8`, 'i8', [inputs, outputs], layer.matrix),
      scales: this.graph.external(`${key}.scales`, 'f32', [outputs], layer.scales),
    };
  }

  #stored(key: string, shape: readonly number[], view: readonly number[], wanted: OnnxType): Value {
    const found = this.#find(key, shape);
    if (found === undefined) return { name: key, type: wanted, shape: view };
    const { record, type } = found;
    const isTransposed = record.isTransposed === true;
    const storedView = isTransposed ? [...view].reverse() : view;
    const stored = storedTensor(this.graph, key, type, storedView, record);
    const cast = this.#scaled(key, record, stored, wanted);
    if (!isTransposed) return cast;
    // Folded like the cast.
    return this.graph.cached(`transposed ${stored.name}`, () =>
      this.graph.node('Transpose', [cast], view, { attributes: { perm: view.map((_, i) => view.length - 1 - i) } }),
    );
  }

  /**
   * Rows of a table in the dialect's type: [N, C] and ids int32 [...] -> [..., C]. They are picked in the storage type and cast
   * after, so that the table itself is never copied: that of UMT5-XXL has 1e9 elements, of which a prompt needs a few rows.
   */
  rows(key: string, shape: readonly [number, number], ids: Value): Value {
    const picked = [...ids.shape, shape[1]];
    const found = this.#find(key, shape);
    const { compute } = this.graph.dialect;
    if (found === undefined) return { name: key, type: compute, shape: picked };
    const { record, type } = found;
    if (record.isTransposed !== true && !this.options.updates?.has(key)) {
      return this.#scaled(key, record, storedRows(this.graph, key, type, shape, record, ids), compute, {
        rows: shape[0],
        ids,
      });
    }
    return this.graph.node('Gather', [this.tensor(key, shape), ids], picked, { attributes: { axis: 0 } });
  }

  /**
   * ComfyUI stores some weights in 8 bits divided by a number, which stands beside them: one for the tensor, or one for each row.
   * @param table the rows that were picked from a table, and its length. Omitted: `stored` is the whole tensor
   */
  #scaled(
    key: string,
    { dtype }: WeightRecord,
    stored: Value,
    wanted: OnnxType,
    table?: { readonly rows: number; readonly ids: Value },
  ): Value {
    const value = this.graph.cast(stored, wanted);
    const stem = key.replace(/\.weight$/, '');
    const name = SCALES.map((end) => stem + end).find((candidate) => this.files.tensors.has(candidate));
    const record = name === undefined ? undefined : this.files.tensors.get(name);
    if (name === undefined || record === undefined || !dtype.startsWith('F8_')) return value;
    this.#usedKeys.add(name);
    const type = storedTypeOf(record);
    const rows = table?.rows ?? Number(value.shape[0]);
    const [count = 1, ...rest] = record.shape;
    if (type === undefined || (count !== 1 && count !== rows) || rest.some((size) => size !== 1)) {
      const problem = `${name} is ${record.dtype} ${formatShape(record.shape)}, must be one number or ${rows}`;
      this.#problems.push(`mis-shaped: ${problem}, one for each row`);
      return value;
    }
    const { graph } = this;
    const ones = value.shape.slice(1).map(() => 1);
    const scale =
      count === 1
        ? storedTensor(graph, name, type, [1], record)
        : table === undefined
          ? storedTensor(graph, name, type, [count, ...ones], record)
          : storedRows(graph, name, type, [count, 1], record, table.ids);
    return graph.node('Mul', [value, graph.cast(scale, value.type)], value.shape);
  }

  /** The tensor of a key, if it is as it must be; what is wrong is noted. */
  #find(key: string, shape: readonly number[]): { record: WeightRecord; type: StoredType } | undefined {
    this.#wanted.set(key, shape);
    const name = this.#nameOf(key);
    const record = name === undefined ? undefined : this.files.tensors.get(name);
    if (name === undefined || record === undefined) {
      this.#problems.push(`missing: ${key} ${formatShape(shape)}`);
      return undefined;
    }
    this.#usedKeys.add(name);
    this.#used.set(record.name, record);
    if (!sameShape(record.shape, shape)) {
      this.#problems.push(`mis-shaped: ${key} is ${formatShape(record.shape)}, must be ${formatShape(shape)}`);
      return undefined;
    }
    const type = storedTypeOf(record);
    if (type === undefined) {
      this.#problems.push(`wrong type: ${key} is ${record.dtype}, must be one of ${storedTypes.join(', ')}`);
      return undefined;
    }
    return { record, type };
  }

  #noteNarrowed(key: string): void {
    const record = this.files.tensors.get(this.#nameOf(key) ?? '');
    if (record?.dtype === 'F32' || record?.dtype === 'BF16') this.#narrowed.set(record.name, record);
  }

  #nameOf(key: string): string | undefined {
    const names = [key, ...(this.options.aliases?.(key) ?? [])];
    return names.find((candidate) => this.files.tensors.has(candidate));
  }
}

/** A place in a checkpoint: blocks extend it by the exact segment of the key. */
export class Scope {
  readonly weights: Weights;
  /** The key so far, without a trailing dot. */
  readonly path: string;

  constructor(weights: Weights, path: string) {
    this.weights = weights;
    this.path = path;
  }

  get graph(): Graph {
    return this.weights.graph;
  }

  at(...segments: readonly (string | number)[]): Scope {
    return new Scope(this.weights, [...(this.path === '' ? [] : [this.path]), ...segments].join('.'));
  }

  has(name: string): boolean {
    return this.weights.has(this.at(name).path);
  }

  tensor(name: string, shape: readonly number[], options?: TensorOptions): Value {
    return this.weights.tensor(this.at(name).path, shape, options);
  }

  quantised(name: string, shape: readonly [number, number]) {
    return this.weights.quantised(this.at(name).path, shape);
  }

  rows(name: string, shape: readonly [number, number], ids: Value): Value {
    return this.weights.rows(this.at(name).path, shape, ids);
  }
}
