import { InferenceError } from '../errors.js';

/** @param what one clause; the cause's words follow it */
export function storageError(what: string, cause: unknown): InferenceError {
  if (cause instanceof InferenceError) return cause;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new InferenceError('STORAGE_FAILED', `${what}: ${why}`, { cause });
}
