import { InferenceError } from '../../errors.js';

/** A file beside the checkpoint, as callers name it. */
export interface NamedFile {
  /** For example "LoRA". */
  readonly title: string;
  readonly name: string;
  readonly path: string;
}

/**
 * An error about files beside a checkpoint that names them as callers do. Callers must not see where files lie.
 * @returns the error itself if it names no path; otherwise one that has it as its cause, for the log
 */
export function withoutPaths(error: InferenceError, files: readonly NamedFile[]): InferenceError {
  // Longest first: a path may begin another.
  const longest = [...files].sort((a, b) => b.path.length - a.path.length);
  const message = longest.reduce(
    (text, { title, name, path }) => text.replaceAll(path, `${title} "${name}"`),
    error.message,
  );
  if (message === error.message) return error;
  const { reason, violations, retryAfterMs } = error;
  return new InferenceError(reason, message, {
    cause: error,
    violations,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}
