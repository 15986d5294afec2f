import type { FloatType } from '../weights/safetensors.js';
import type { ExternalRange, Graph, Value } from './graph.js';

const ONNX_TYPE = { F32: 'f32', F16: 'f16', BF16: 'bf16' } as const;

/** A tensor of a weight file as it is stored. */
export function storedTensor(
  graph: Graph,
  name: string,
  dtype: FloatType,
  shape: readonly number[],
  range: ExternalRange,
): Value {
  return graph.external(name, ONNX_TYPE[dtype], shape, range);
}

/** The same elements as float32. The runtime folds casts of initializers while it loads: a step does not pay for them. */
export function toFloat32(graph: Graph, x: Value): Value {
  if (x.type === 'f32') return x;
  return graph.cached(`f32 ${x.name}`, () => graph.node('Cast', [x], x.shape, { attributes: { to: 1 } }));
}
