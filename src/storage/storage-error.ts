import { exhaustedResource, InferenceError } from '../errors.js';

/** @param what failed, as one clause. The message of the cause follows it */
export function storageError(what: string, cause: unknown): InferenceError {
  if (cause instanceof InferenceError) return cause;
  if (exhaustedResource(cause) !== undefined) return InferenceError.from(cause);
  const why = cause instanceof Error ? cause.message : String(cause);
  return new InferenceError('STORAGE_FAILED', `${what}: ${why}`, { cause });
}
