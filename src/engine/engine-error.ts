import { InferenceError } from '../errors.js';

/** Messages by which ONNX Runtime, its CUDA and WebGPU providers and C++ report that memory ran out. */
const OUT_OF_MEMORY =
  /out of memory|failed to allocate|bad_alloc|allocation failed|OutOfMemory|CUDNN_STATUS_ALLOC_FAILED/i;

/** The error that an engine process sends for a caught one; exhausted memory gets its own reason. */
export function toEngineError(error: unknown): InferenceError {
  if (error instanceof InferenceError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (OUT_OF_MEMORY.test(message)) {
    return new InferenceError(
      'OUT_OF_MEMORY',
      'Insufficient VRAM for generation; request a smaller image or fewer images',
      { cause: error },
    );
  }
  return InferenceError.from(error);
}
