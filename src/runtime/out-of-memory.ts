/**
 * Messages by which memory that ran out is reported: ONNX Runtime's arena and allocators, CUDA, cuBLAS and cuDNN, Vulkan below WebGPU,
 * llama.cpp, C++, V8's array buffers, and the system's ENOMEM. From the sources and strings of ONNX Runtime 1.30; only those of the CPU
 * and of V8 were seen.
 */
const OUT_OF_MEMORY = [
  /out[ _]of[ _](device[ _]|host[ _])?memory/i,
  /OutOfMemory/,
  /failed to allocate|unable to allocate|cannot allocate memory|allocation failed|insufficient memory/i,
  /Available memory of \d+ is smaller than requested bytes/,
  /bad_alloc/,
  /ALLOC_FAILED/,
] as const;

/** True if a message says that memory ran out. */
export function saysOutOfMemory(message: string): boolean {
  return OUT_OF_MEMORY.some((pattern) => pattern.test(message));
}

/** True for an error of a runtime whose memory ran out. */
export function isOutOfMemory(error: unknown): boolean {
  if (error instanceof Error && 'reason' in error) return error.reason === 'OUT_OF_MEMORY';
  return saysOutOfMemory(error instanceof Error ? error.message : String(error));
}
