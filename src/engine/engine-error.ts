import { InferenceError } from '../errors.js';

/** How ONNX Runtime, its CUDA and WebGPU providers and C++ itself say that memory ran out. */
const OUT_OF_MEMORY =
  /out of memory|failed to allocate|bad_alloc|allocation failed|OutOfMemory|CUDNN_STATUS_ALLOC_FAILED/i;

/** What an engine process tells of an error: an exhausted device under its own reason. */
export function toEngineError(error: unknown): InferenceError {
  if (error instanceof InferenceError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (OUT_OF_MEMORY.test(message)) {
    return new InferenceError(
      'OUT_OF_MEMORY',
      'Insufficient VRAM for generation; ask for a smaller picture or fewer of them',
      { cause: error },
    );
  }
  return InferenceError.from(error);
}
