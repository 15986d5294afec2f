/**
 * The part of ONNX's protobuf that a graph over external weights needs, written with protobuf's own wire writer.
 * Field numbers: https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto
 */
import { BinaryWriter } from '@bufbuild/protobuf/wire';

/** TensorProto.DataType */
export const onnxTypes = {
  f32: 1,
  u8: 2,
  i8: 3,
  i32: 6,
  i64: 7,
  bool: 9,
  f16: 10,
  bf16: 16,
  f8e4m3: 17,
  f8e5m2: 19,
} as const;
export type OnnxType = keyof typeof onnxTypes;

/** A dimension: a size, or the name of one that is known only when the graph runs. */
export type Dim = number | string;

export type Attribute =
  | number
  | { readonly float: number }
  | { readonly graph: GraphProto }
  | readonly number[]
  | string;

export interface NodeProto {
  readonly op: string;
  readonly domain: string;
  readonly name: string;
  /** An empty name stands for an optional input left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

export interface InitializerProto {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: readonly number[];
  /** Bytes in the model itself, or a range of a file beside it. */
  readonly content:
    | { readonly kind: 'raw'; readonly bytes: Uint8Array }
    | { readonly kind: 'external'; readonly location: string; readonly offset: number; readonly length: number };
}

export interface ValueProto {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: readonly Dim[];
}

export interface GraphProto {
  readonly name: string;
  readonly nodes: readonly NodeProto[];
  readonly initializers: readonly InitializerProto[];
  readonly inputs: readonly ValueProto[];
  readonly outputs: readonly ValueProto[];
  /** Values between its nodes; the runtime infers those that are not here. Omitted: none. */
  readonly values?: readonly ValueProto[];
}

export interface ModelProto {
  readonly graph: GraphProto;
  /** Version of ONNX's own ops. */
  readonly opset: number;
}

/** IR 10 carries both opsets. */
const IR_VERSION = 10;
/** Version of ONNX's own ops. CUDA's Conv takes bfloat16 from 22 on. */
export const opsets = { default: 21, bf16: 22 } as const;
/** AttributeProto.AttributeType */
const ATTRIBUTE = { float: 1, int: 2, string: 3, graph: 5, ints: 7 } as const;
/** TensorProto.DataLocation.EXTERNAL */
const EXTERNAL = 1;

/** ModelProto bytes of a graph. */
export function encodeModel({ graph, opset }: ModelProto): Uint8Array {
  const model = new BinaryWriter();
  model.uint32((1 << 3) | 0).int64(IR_VERSION);
  model.uint32((2 << 3) | 2).string('darkroom');
  message(model, 7, (writer) => encodeGraph(writer, graph));
  for (const [domain, version] of [
    ['', opset],
    ['com.microsoft', 1],
  ] as const) {
    message(model, 8, (writer) => {
      writer.uint32((1 << 3) | 2).string(domain);
      writer.uint32((2 << 3) | 0).int64(version);
    });
  }
  return model.finish();
}

function message(writer: BinaryWriter, field: number, body: (writer: BinaryWriter) => void): void {
  writer.uint32((field << 3) | 2).fork();
  body(writer);
  writer.join();
}

function encodeGraph(writer: BinaryWriter, graph: GraphProto): void {
  for (const node of graph.nodes) message(writer, 1, (inner) => encodeNode(inner, node));
  writer.uint32((2 << 3) | 2).string(graph.name);
  for (const initializer of graph.initializers) message(writer, 5, (inner) => encodeInitializer(inner, initializer));
  for (const input of graph.inputs) message(writer, 11, (inner) => encodeValue(inner, input));
  for (const output of graph.outputs) message(writer, 12, (inner) => encodeValue(inner, output));
  for (const value of graph.values ?? []) message(writer, 13, (inner) => encodeValue(inner, value));
}

function encodeNode(writer: BinaryWriter, node: NodeProto): void {
  for (const input of node.inputs) writer.uint32((1 << 3) | 2).string(input);
  for (const output of node.outputs) writer.uint32((2 << 3) | 2).string(output);
  writer.uint32((3 << 3) | 2).string(node.name);
  writer.uint32((4 << 3) | 2).string(node.op);
  for (const [name, value] of Object.entries(node.attributes)) {
    message(writer, 5, (inner) => encodeAttribute(inner, name, value));
  }
  if (node.domain !== '') writer.uint32((7 << 3) | 2).string(node.domain);
}

function encodeAttribute(writer: BinaryWriter, name: string, value: Attribute): void {
  writer.uint32((1 << 3) | 2).string(name);
  let type: number;
  if (typeof value === 'number') {
    writer.uint32((3 << 3) | 0).int64(value);
    type = ATTRIBUTE.int;
  } else if (typeof value === 'string') {
    writer.uint32((4 << 3) | 2).bytes(new TextEncoder().encode(value));
    type = ATTRIBUTE.string;
  } else if ('float' in value) {
    writer.uint32((2 << 3) | 5).float(value.float);
    type = ATTRIBUTE.float;
  } else if ('graph' in value) {
    message(writer, 6, (inner) => encodeGraph(inner, value.graph));
    type = ATTRIBUTE.graph;
  } else {
    for (const item of value) writer.uint32((8 << 3) | 0).int64(item);
    type = ATTRIBUTE.ints;
  }
  writer.uint32((20 << 3) | 0).int32(type);
}

function encodeInitializer(writer: BinaryWriter, { name, type, shape, content }: InitializerProto): void {
  for (const dim of shape) writer.uint32((1 << 3) | 0).int64(dim);
  writer.uint32((2 << 3) | 0).int32(onnxTypes[type]);
  writer.uint32((8 << 3) | 2).string(name);
  if (content.kind === 'raw') {
    writer.uint32((9 << 3) | 2).bytes(content.bytes);
    return;
  }
  const { location, offset, length } = content;
  for (const [key, value] of Object.entries({ location, offset: String(offset), length: String(length) })) {
    message(writer, 13, (inner) => {
      inner.uint32((1 << 3) | 2).string(key);
      inner.uint32((2 << 3) | 2).string(value);
    });
  }
  writer.uint32((14 << 3) | 0).int32(EXTERNAL);
}

function encodeValue(writer: BinaryWriter, { name, type, shape }: ValueProto): void {
  writer.uint32((1 << 3) | 2).string(name);
  message(writer, 2, (typeProto) => {
    message(typeProto, 1, (tensorType) => {
      tensorType.uint32((1 << 3) | 0).int32(onnxTypes[type]);
      message(tensorType, 2, (shapeProto) => {
        for (const dim of shape) {
          message(shapeProto, 1, (dimension) => {
            if (typeof dim === 'number') dimension.uint32((1 << 3) | 0).int64(dim);
            else dimension.uint32((2 << 3) | 2).string(dim);
          });
        }
      });
    });
  });
}
