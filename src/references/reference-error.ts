import { FileError, InferenceError } from '../errors.js';

/** A host that fails is rarely back within a second. */
const RETRY_AFTER_MS = 5000;

/**
 * @param sentence the message for a file of that name: "the reference"
 * @throws FileError REFERENCE_INVALID: the caller must change the file
 */
export function rejectReference(sentence: (file: string) => string, cause?: unknown): never {
  throw new FileError('REFERENCE_INVALID', sentence, { cause });
}

/** The error of a failure after which a retry may succeed. */
export function referenceUnavailable(sentence: (file: string) => string, cause?: unknown): FileError {
  return new FileError('REFERENCE_UNAVAILABLE', sentence, { cause, retryAfterMs: RETRY_AFTER_MS });
}

/** Codes of failures that a retry does not change: bad certificates, broken TLS or HTTP. */
const PERMANENT = /CERT|SELF_SIGNED|UNABLE_TO|^ERR_TLS|^ERR_SSL|^EPROTO$|^HPE_/;

/**
 * The InferenceError of a failed connection. Its message has the error's code only, because the error's own message may name addresses
 * behind the host. An error without a code is not one of a connection and becomes INTERNAL.
 */
export function connectionError(error: unknown, host: string): InferenceError {
  if (error instanceof InferenceError || !(error instanceof Error && 'code' in error))
    return InferenceError.from(error);
  const code = String(error.code);
  if (PERMANENT.test(code)) {
    return new FileError(
      'REFERENCE_INVALID',
      (file) => `the connection to "${host}" for ${file} is not secure or not HTTP (${code}); use another host`,
      { cause: error },
    );
  }
  return referenceUnavailable(
    (file) => `the connection to "${host}" for ${file} failed (${code}); try again later`,
    error,
  );
}
