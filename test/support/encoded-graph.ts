import { BinaryReader } from '@bufbuild/protobuf/wire';
import type { Graph } from '../../src/graph/graph.js';

export interface EncodedNode {
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** TensorProto.DataType of a Cast's result. */
  readonly to: number;
}

/** The part of a graph's ModelProto that says which types its nodes take. Types are numbers of TensorProto.DataType. */
export interface EncodedGraph {
  readonly nodes: readonly EncodedNode[];
  readonly initializers: ReadonlyMap<string, number>;
  readonly inputs: ReadonlyMap<string, number>;
  readonly outputs: ReadonlyMap<string, number>;
  /** Shapes of the values between the nodes. */
  readonly between: ReadonlyMap<string, readonly (number | string)[]>;
}

type Fields = ReadonlyMap<number, readonly (Uint8Array | number)[]>;

/** Decodes what the graph encodes. Field numbers: https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto */
export function encodedGraph(graph: Graph): EncodedGraph {
  const model = fieldsOf(graph.encode((file) => file));
  const proto = fieldsOf(bytesIn(model, 7)[0]);
  const values = (field: number) => new Map(bytesIn(proto, field).map((bytes) => valueType(fieldsOf(bytes))));
  return {
    nodes: bytesIn(proto, 1).map((bytes) => node(fieldsOf(bytes))),
    initializers: new Map(
      bytesIn(proto, 5).map((bytes) => {
        const tensor = fieldsOf(bytes);
        return [text(bytesIn(tensor, 8)[0]), number(tensor, 2)];
      }),
    ),
    inputs: values(11),
    outputs: values(12),
    between: new Map(bytesIn(proto, 13).map((bytes) => valueShape(fieldsOf(bytes)))),
  };
}

function node(fields: Fields): EncodedNode {
  const to = bytesIn(fields, 5)
    .map(fieldsOf)
    .find((attribute) => text(bytesIn(attribute, 1)[0]) === 'to');
  return {
    op: text(bytesIn(fields, 4)[0]),
    name: text(bytesIn(fields, 3)[0]),
    inputs: bytesIn(fields, 1).map(text),
    outputs: bytesIn(fields, 2).map(text),
    to: to === undefined ? 0 : number(to, 3),
  };
}

function valueType(fields: Fields): [string, number] {
  return [text(bytesIn(fields, 1)[0]), number(tensorType(fields), 1)];
}

function valueShape(fields: Fields): [string, readonly (number | string)[]] {
  const dimensions = bytesIn(fieldsOf(bytesIn(tensorType(fields), 2)[0]), 1).map(fieldsOf);
  const dims = dimensions.map((dimension) => text(bytesIn(dimension, 2)[0]) || number(dimension, 1));
  return [text(bytesIn(fields, 1)[0]), dims];
}

function tensorType(fields: Fields): Fields {
  return fieldsOf(bytesIn(fieldsOf(bytesIn(fields, 2)[0]), 1)[0]);
}

function fieldsOf(bytes: Uint8Array = new Uint8Array()): Fields {
  const reader = new BinaryReader(bytes);
  const fields = new Map<number, (Uint8Array | number)[]>();
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    const values = fields.get(field) ?? [];
    fields.set(field, values);
    if (wire === 2) values.push(reader.bytes());
    else if (wire === 0) values.push(Number(reader.int64()));
    else reader.skip(wire);
  }
  return fields;
}

function bytesIn(fields: Fields, field: number): readonly Uint8Array[] {
  return (fields.get(field) ?? []).filter((value) => typeof value !== 'number');
}

function number(fields: Fields, field: number): number {
  return Number(fields.get(field)?.[0] ?? 0);
}

function text(bytes: Uint8Array = new Uint8Array()): string {
  return new TextDecoder().decode(bytes);
}
