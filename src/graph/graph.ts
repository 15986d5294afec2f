import { elementCount } from '../std/element-count.js';
import { formatShape } from '../std/format-shape.js';
import { bytesFromFloats } from '../weights/half-floats.js';
import type { Dialect } from './dialect.js';
import { emulateHalves } from './emulate-halves.js';
import {
  type Attribute,
  encodeModel,
  type GraphProto,
  type InitializerProto,
  type NodeProto,
  type OnnxType,
  onnxTypes,
  opsets,
} from './onnx-proto.js';
import { type Shape, sameElementCount } from './shape.js';

/** Names of the compute types in weight files. */
const STORAGE: Partial<Record<OnnxType, 'F32' | 'F16' | 'BF16'>> = { f32: 'F32', f16: 'F16', bf16: 'BF16' };

function storageOf(type: OnnxType): 'F32' | 'F16' | 'BF16' {
  const storage = STORAGE[type];
  if (storage === undefined) throw new Error(`${type} is no float type of a graph`);
  return storage;
}

/** A tensor in the graph: the name it has there, its type and its shape. */
export interface Value {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: Shape;
}

/** An initializer whose elements stay in a file of the user's. */
export interface ExternalRange {
  /** Real path. */
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

export interface GraphAnatomy {
  readonly nodes: readonly NodeProto[];
  readonly values: ReadonlyMap<string, Value>;
  /** Names of the values that are there before a run. */
  readonly initializers: readonly string[];
  readonly outputs: readonly string[];
}

interface ExternalInitializer extends ExternalRange {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: readonly number[];
}

export interface NodeOptions {
  readonly attributes?: Readonly<Record<string, Attribute>>;
  readonly domain?: '' | 'com.microsoft';
  /** Type of the results. Omitted: that of the first input. */
  readonly type?: OnnxType;
}

/**
 * An ONNX graph under construction. Ops live in ops.ts; this class knows values, nodes, initializers and shapes. The body of a Scan
 * is a graph inside another: it sees the values of that one, and their initializers are all the outermost one's.
 */
export class Graph {
  readonly #nodes: NodeProto[] = [];
  readonly #constants: InitializerProto[] = [];
  readonly #externals: ExternalInitializer[] = [];
  readonly #inputs: Value[] = [];
  readonly #outputs: Value[] = [];
  /** For each run-time dimension the first value that had it, from whose shape it is read. */
  readonly #dimensions = new Map<string, { value: Value; axis: number }>();
  readonly #cache = new Map<string, Value>();
  /** Names of outputs for values that are outputs themselves. */
  readonly #renamed = new Map<string, string>();
  /** All values, those of bodies too, by name. */
  readonly #values = new Map<string, Value>();

  readonly name: string;
  readonly dialect: Dialect;
  readonly #outer: Graph | undefined;

  /** @param outer the graph whose node this one is the body of */
  constructor(name: string, dialect: Dialect, outer?: Graph) {
    this.name = name;
    this.dialect = dialect;
    this.#outer = outer;
  }

  input(name: string, type: OnnxType, shape: Shape): Value {
    const value = this.#value(name, type, shape);
    this.#inputs.push(value);
    return value;
  }

  /** An input that is fed in float32 and computed with in the dialect's type: the casts of a graph stand at its borders. */
  floatInput(name: string, shape: Shape): Value {
    return this.narrow(this.input(name, 'f32', shape));
  }

  /** The same elements in float32, for what half precision is too coarse or too narrow for. */
  wide(x: Value): Value {
    return this.cast(x, 'f32');
  }

  /** The same elements in the dialect's type. */
  narrow(x: Value): Value {
    return this.cast(x, this.dialect.compute);
  }

  /** Names a value as an output of the graph. Floats leave it in float32, whatever they were computed in. */
  output(name: string, value: Value): void {
    const isHalf = value.type === 'f16' || value.type === 'bf16';
    const [op, attributes] = isHalf ? ['Cast', { to: onnxTypes.f32 }] : ['Identity', {}];
    this.#nodes.push({ op, domain: '', name, inputs: [value.name], outputs: [name], attributes });
    const output = this.#value(name, isHalf ? 'f32' : value.type, value.shape);
    this.#outputs.push(output);
  }

  /**
   * An input that takes what `carriedOutput` gave in an earlier run: of the dialect's type, where graphs may have such borders. The
   * runtime's binding knows no bfloat16.
   */
  carriedInput(name: string, shape: Shape): Value {
    return this.narrow(this.input(name, this.dialect.compute === 'f16' ? 'f16' : 'f32', shape));
  }

  /** An output that takes no room of its own where it can be had: the value itself is given away, under this name. */
  carriedOutput(name: string, value: Value): void {
    if (value.type === 'bf16') {
      this.output(name, value);
      return;
    }
    const isMade = this.#nodes.some(({ outputs }) => outputs.includes(value.name));
    if (isMade && !this.#renamed.has(value.name)) {
      this.#renamed.set(value.name, name);
      this.#outputs.push({ ...value, name });
      return;
    }
    this.#nodes.push({ op: 'Identity', domain: '', name, inputs: [value.name], outputs: [name], attributes: {} });
    this.#outputs.push(this.#value(name, value.type, value.shape));
  }

  /** The same elements in another type. The runtime folds casts of initializers while it loads: a step does not pay for them. */
  cast(x: Value, type: OnnxType): Value {
    if (x.type === type) return x;
    return this.cached(`${type} ${x.name}`, () =>
      this.node('Cast', [x], x.shape, { type, attributes: { to: onnxTypes[type] } }),
    );
  }

  node(op: string, inputs: readonly (Value | undefined)[], shape: Shape, options: NodeOptions = {}): Value {
    return this.nodes(op, inputs, [shape], options)[0] as Value;
  }

  /**
   * ONNX's Scan over the first axis: the body is run on each element of `x`, and its results lie side by side along a first axis
   * again. https://onnx.ai/onnx/operators/onnx__Scan.html
   * @param body gets one element, without that axis, and may use every value of this graph
   */
  scan(x: Value, body: (graph: Graph, element: Value) => Value): Value {
    const [count = 0, ...element] = x.shape;
    const inner = new Graph(`${this.#prefix}Scan.${this.#nodes.length}`, this.dialect, this);
    const result = body(inner, inner.input(`${inner.name}/element`, x.type, element));
    const name = `${inner.name}/result`;
    inner.#nodes.push({ op: 'Identity', domain: '', name, inputs: [result.name], outputs: [name], attributes: {} });
    inner.#outputs.push({ ...result, name });
    return this.node('Scan', [x], [count, ...result.shape], {
      attributes: { num_scan_inputs: 1, body: { graph: inner.#proto() } },
    });
  }

  /** A node with one output per shape. */
  nodes(
    op: string,
    inputs: readonly (Value | undefined)[],
    shapes: readonly Shape[],
    options: NodeOptions = {},
  ): Value[] {
    const { attributes = {}, domain = '', type = inputs[0]?.type ?? this.dialect.compute } = options;
    const name = `${this.#prefix}${op}.${this.#nodes.length}`;
    const outputs = shapes.map((shape, i) => this.#value(shapes.length === 1 ? name : `${name}:${i}`, type, shape));
    this.#nodes.push({
      op,
      domain,
      name,
      inputs: inputs.map((input) => input?.name ?? ''),
      outputs: outputs.map((output) => output.name),
      attributes,
    });
    return outputs;
  }

  /**
   * A small constant inside the model; equal ones are shared.
   * @param floatType type of the elements of a Float32Array, a float type. Omitted: the dialect's
   */
  constant(
    data: Float32Array | BigInt64Array | Int32Array,
    shape: readonly number[],
    floatType: OnnxType = this.dialect.compute,
  ): Value {
    if (this.#outer !== undefined) return this.#outer.constant(data, shape, floatType);
    const type = data instanceof Float32Array ? floatType : data instanceof Int32Array ? 'i32' : 'i64';
    return this.cached(`constant ${type} ${shape} ${data}`, () => {
      const name = `constant.${this.#constants.length}`;
      const bytes =
        data instanceof Float32Array
          ? bytesFromFloats(storageOf(floatType), data)
          : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const value = { name, type, shape };
      this.#values.set(name, value);
      this.#constants.push({ ...value, content: { kind: 'raw', bytes } });
      return value;
    });
  }

  /** A tensor of the user's file, in its own storage type. */
  external(name: string, type: OnnxType, shape: readonly number[], range: ExternalRange): Value {
    if (this.#outer !== undefined) return this.#outer.external(name, type, shape, range);
    return this.cached(`external ${range.file} ${range.offset} ${type} ${shape}`, () => {
      const unique = this.#values.has(name) ? `${name} ${formatShape(shape)}` : name;
      const { file, offset, length } = range;
      const value = { name: unique, type, shape };
      this.#values.set(unique, value);
      this.#externals.push({ ...value, file, offset, length });
      return value;
    });
  }

  cached(key: string, make: () => Value): Value {
    let value = this.#known(key);
    if (value === undefined) {
      value = make();
      this.#cache.set(key, value);
    }
    return value;
  }

  /** The same elements in another shape; run-time dimensions are found by name. */
  reshape(x: Value, shape: Shape): Value {
    if (!sameElementCount(x.shape, shape)) {
      throw new Error(`${x.name}: ${formatShape(x.shape)} cannot be reshaped to ${formatShape(shape)}`);
    }
    return this.node('Reshape', [x, this.#targetShape(x.shape, shape)], shape);
  }

  /** A run-time dimension as an int64 [1] value. */
  dimension(name: string): Value {
    const source = this.#dimensions.get(name);
    if (source === undefined) {
      if (this.#outer !== undefined) return this.#outer.dimension(name);
      throw new Error(`${this.name}: no value has the dimension ${name}`);
    }
    const { value, axis } = source;
    return this.cached(`dimension ${name}`, () =>
      this.node('Shape', [value], [1], { type: 'i64', attributes: { start: axis, end: axis + 1 } }),
    );
  }

  /** int64 shape values of whole shapes, constant where every dimension is. */
  shapeValue(shape: Shape): Value {
    return this.cached(`shape ${shape}`, () => {
      const parts = shape.map((dim) => (typeof dim === 'number' ? this.#int64([dim]) : this.dimension(dim)));
      return this.node('Concat', parts, [shape.length], { type: 'i64', attributes: { axis: 0 } });
    });
  }

  /** What a run is fed. */
  get inputs(): readonly Value[] {
    return this.#inputs;
  }

  /** Names of what a run gives back. */
  get outputs(): readonly string[] {
    return this.#outputs.map(({ name }) => name);
  }

  /** The nodes in the order in which they were made, and all values by name: for what is computed about a graph. */
  get anatomy(): GraphAnatomy {
    return {
      nodes: this.#nodes.map(withCaptured),
      values: this.#values,
      initializers: [...this.#constants, ...this.#externals].map(({ name }) => name),
      outputs: [...this.#outputs.map(({ name }) => name), ...this.#renamed.keys()],
    };
  }

  /** True if a node has this op. */
  uses(op: string): boolean {
    return this.#nodes.some((node) => node.op === op);
  }

  /** Elements of the initializers in the user's files. */
  get externalElements(): number {
    return this.#externals.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  }

  /** Real paths of the files that initializers point into. */
  get files(): readonly string[] {
    return [...new Set(this.#externals.map((initializer) => initializer.file))];
  }

  /**
   * ModelProto bytes.
   * @param locate turns the real path of a weight file into the location that the session will look for
   */
  encode(locate: (file: string) => string): Uint8Array {
    const { emulated = false, compute } = this.dialect;
    const externals = this.#externals.map(({ name, type, shape, file, offset, length }) => ({
      name,
      type,
      shape,
      content: { kind: 'external' as const, location: locate(file), offset, length },
    }));
    const graph = { ...this.#proto(), initializers: [...this.#constants, ...externals] };
    return encodeModel({ graph, opset: compute === 'bf16' && !emulated ? opsets.bf16 : opsets.default });
  }

  #proto(): GraphProto {
    const { emulated = false } = this.dialect;
    const { nodes, values } = emulated
      ? emulateHalves(this.#nodes, this.#root.#values, this.#prefix)
      : { nodes: this.#nodes, values: [] };
    const outputs = new Set([...this.outputs, ...this.#renamed.keys()]);
    return {
      name: this.name,
      nodes: nodes.map((node) => this.#withNames(node)),
      inputs: this.#inputs,
      outputs: this.#outputs,
      initializers: [],
      values: values.filter(({ name }) => !outputs.has(name)),
    };
  }

  #withNames(node: NodeProto): NodeProto {
    if (this.#renamed.size === 0) return node;
    const rename = (name: string) => this.#renamed.get(name) ?? name;
    return { ...node, inputs: node.inputs.map(rename), outputs: node.outputs.map(rename) };
  }

  get #root(): Graph {
    return this.#outer === undefined ? this : this.#outer.#root;
  }

  /** Begins the names of a body's values: a body hides none of the outer graph's. */
  get #prefix(): string {
    return this.#outer === undefined ? '' : `${this.name}/`;
  }

  #known(key: string): Value | undefined {
    return this.#cache.get(key) ?? (this.#outer === undefined ? undefined : this.#outer.#known(key));
  }

  #value(name: string, type: OnnxType, shape: Shape): Value {
    const value = { name, type, shape };
    this.#root.#values.set(name, value);
    for (const [axis, dim] of shape.entries()) {
      if (typeof dim === 'string' && !dim.includes('*') && !this.#dimensions.has(dim)) {
        this.#dimensions.set(dim, { value, axis });
      }
    }
    return value;
  }

  #int64(values: readonly number[]): Value {
    return this.constant(BigInt64Array.from(values, BigInt), [values.length]);
  }

  // In Reshape, 0 keeps the dimension at that place and one -1 takes what is left.
  #targetShape(from: Shape, to: Shape): Value {
    const unknown = to.flatMap((dim, i) => (typeof dim === 'string' && dim !== from[i] ? [i] : []));
    if (unknown.length <= 1) {
      return this.#int64(to.map((dim, i) => (typeof dim === 'number' ? dim : dim === from[i] ? 0 : -1)));
    }
    const unread = unknown.filter((i) => !this.#isDimension(String(to[i])));
    if (unread.length > 1) throw new Error(`a shape with two dimensions that no value has: ${formatShape(to)}`);
    if (unread.length === 0) return this.shapeValue(to);
    return this.shapeValue(to.map((dim, i) => (i === unread[0] ? -1 : dim)));
  }

  /** True for one that `dimension` finds. A product is none. */
  #isDimension(name: string): boolean {
    if (this.#dimensions.has(name)) return true;
    return this.#outer === undefined ? false : this.#outer.#isDimension(name);
  }
}

/** A node whose inputs include the outer values that its body reads. */
function withCaptured(node: NodeProto): NodeProto {
  const { body } = node.attributes;
  if (typeof body !== 'object' || !('graph' in body)) return node;
  const { nodes, inputs } = body.graph;
  const inside = new Set([...inputs.map(({ name }) => name), ...nodes.flatMap(({ outputs }) => outputs)]);
  const captured = nodes.flatMap((inner) => inner.inputs).filter((name) => !inside.has(name));
  return { ...node, inputs: [...new Set([...node.inputs, ...captured])] };
}
