import { OrtError } from './native/ort-error.js';

/**
 * Messages by which a provider refuses an op, or a type of one: ONNX Runtime without a kernel, its check of a graph's types, the Node
 * binding, and WebGPU without 16-bit floats. From the strings of ONNX Runtime 1.30; CUDA's were not seen.
 */
const UNSUPPORTED = [
  /could not find an implementation|not[ _]implemented/i,
  /not supported|unsupported|does not support|takes no bfloat16/i,
  /Type Error: Type '[^']+' of .* is invalid/,
] as const;

/** True for an error of a runtime that does not have an op in the type that a graph computes in. */
export function isUnsupported(error: unknown): boolean {
  if (error instanceof OrtError && error.code === 'NOT_IMPLEMENTED') return true;
  const message = error instanceof Error ? error.message : String(error);
  return UNSUPPORTED.some((pattern) => pattern.test(message));
}
