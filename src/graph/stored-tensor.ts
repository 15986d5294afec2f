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
