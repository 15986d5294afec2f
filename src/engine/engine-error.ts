import { InferenceError } from '../errors.js';
import { saysOutOfMemory } from '../runtime/out-of-memory.js';

/** The error that an engine process sends for a caught one; exhausted memory gets its own reason. */
export function toEngineError(error: unknown): InferenceError {
  if (error instanceof InferenceError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (saysOutOfMemory(message)) {
    return new InferenceError(
      'OUT_OF_MEMORY',
      'Insufficient VRAM for generation; request a smaller image or fewer images',
      { cause: error },
    );
  }
  return InferenceError.from(error);
}
