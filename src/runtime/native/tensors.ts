import { type OnnxType, onnxTypes } from '../../graph/onnx-proto.js';
import { elementCount } from '../../std/element-count.js';
import { formatShape } from '../../std/format-shape.js';
import type { Feed, TensorData } from '../network-session.js';
import type { Handle } from './handle.js';
import type { OrtLibrary } from './ort-library.js';

/** Copies a feed into memory of the library, so that nobody can change or move it during the run. */
export function writeTensor(library: OrtLibrary, name: string, { data, shape, half = 'f16' }: Feed): Handle {
  const elements = elementCount(shape);
  if (elements !== data.length) {
    throw new Error(`input ${name} has ${data.length} elements, its shape ${formatShape(shape)} has ${elements}`);
  }
  const { api, allocator } = library;
  const type = onnxTypes[typeOf(data, half)];
  const dims = BigInt64Array.from(shape, BigInt);
  const value = library.own('Value', api.call('CreateTensorAsOrtValue', allocator, dims, dims.length, type));
  if (elements > 0) {
    const memory = api.memoryAt(api.call('GetTensorMutableData', value.pointer), data.byteLength);
    new Uint8Array(memory).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return value;
}

/**
 * Copies a tensor out of the library's memory.
 * @param value on the host: memory of a device cannot be read
 */
export function readTensor(library: OrtLibrary, value: Handle): TensorData {
  const { api } = library;
  const info = library.own('TensorTypeAndShapeInfo', api.call('GetTensorTypeAndShape', value.pointer));
  try {
    const type = api.call('GetTensorElementType', info.pointer);
    const elements = Number(api.call('GetTensorShapeElementCount', info.pointer));
    const Elements = arrays.get(type);
    if (Elements === undefined) throw new Error(`an output has elements of type ${type}, which is none of darkroom's`);
    const data = new Elements(elements);
    if (elements > 0) {
      const memory = api.memoryAt(api.call('GetTensorMutableData', value.pointer), data.byteLength);
      new Uint8Array(data.buffer).set(new Uint8Array(memory));
    }
    return data;
  } finally {
    info.release();
  }
}

function typeOf(data: TensorData, half: 'f16' | 'bf16'): OnnxType {
  if (data instanceof Float32Array) return 'f32';
  if (data instanceof Int32Array) return 'i32';
  return data instanceof BigInt64Array ? 'i64' : half;
}

/** ONNXTensorElementDataType has the values of TensorProto.DataType. */
const arrays = new Map<number, new (length: number) => TensorData>([
  [onnxTypes.f32, Float32Array],
  [onnxTypes.i32, Int32Array],
  [onnxTypes.i64, BigInt64Array],
  [onnxTypes.f16, Uint16Array],
  [onnxTypes.bf16, Uint16Array],
]);
