import { float8Table, float8Types } from '../weights/float8.js';
import type { StoredType } from '../weights/safetensors.js';
import type { ExternalRange, Graph, Value } from './graph.js';

const ONNX_TYPE = { F32: 'f32', F16: 'f16', BF16: 'bf16', F8_E4M3: 'f8e4m3', F8_E5M2: 'f8e5m2' } as const;

/** A tensor of a weight file as it is stored. Every type is cast when the session is built, on the CPU, and exactly. */
export function storedTensor(
  graph: Graph,
  name: string,
  dtype: StoredType,
  shape: readonly number[],
  range: ExternalRange,
): Value {
  return graph.external(name, ONNX_TYPE[dtype], shape, range);
}

/** Rows of a stored table: [N, C] and ids int32 [...] -> [..., C] in the dialect's type. Only the rows are widened. */
export function storedRows(
  graph: Graph,
  name: string,
  dtype: StoredType,
  shape: readonly [number, number],
  range: ExternalRange,
  ids: Value,
): Value {
  const picked = [...ids.shape, shape[1]];
  const { compute } = graph.dialect;
  const rows = (table: Value) => graph.node('Gather', [table, ids], picked, { attributes: { axis: 0 } });
  const float8 = float8Types.find((type) => type === dtype);
  if (float8 === undefined) return graph.cast(rows(storedTensor(graph, name, dtype, shape, range)), compute);
  // The runtime gathers no 8-bit floats: the rows are picked as bytes, and each byte is looked up.
  const bytes = graph.cast(rows(graph.external(name, 'u8', shape, range)), 'i32');
  const values = graph.constant(float8Table(float8), [256], 'f32');
  return graph.cast(graph.node('Gather', [values, bytes], picked, { attributes: { axis: 0 } }), compute);
}
