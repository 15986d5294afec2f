import { InferenceError } from '../../errors.js';

/**
 * An error about LoRA files that names them as callers do. Callers must not see where files lie.
 * @returns the error itself if it names no path; otherwise one that has it as its cause, for the log
 */
export function withoutPaths(
  error: InferenceError,
  loras: readonly { readonly name: string; readonly path: string }[],
): InferenceError {
  const message = loras.reduce((text, { name, path }) => text.replaceAll(path, `LoRA "${name}"`), error.message);
  if (message === error.message) return error;
  const { reason, violations, retryAfterMs } = error;
  return new InferenceError(reason, message, {
    cause: error,
    violations,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}
