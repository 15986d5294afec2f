import { InferenceError } from '../errors.js';

/** A host that fails is rarely back within a second. */
const RETRY_AFTER_MS = 5000;

/** What a caller must change. */
export function rejectReference(sentence: string, cause?: unknown): never {
  throw new InferenceError('REFERENCE_INVALID', sentence, { cause });
}

/** What may pass. */
export function referenceUnavailable(sentence: string, cause?: unknown): InferenceError {
  return new InferenceError('REFERENCE_UNAVAILABLE', sentence, { cause, retryAfterMs: RETRY_AFTER_MS });
}

/** Certificates that do not hold, TLS and HTTP that are none: the same tomorrow. */
const PERMANENT = /CERT|SELF_SIGNED|UNABLE_TO|^ERR_TLS|^ERR_SSL|^EPROTO$|^HPE_/;

/**
 * What came of a connection, told by its code alone: other words of an error may name addresses behind the host. An error without a
 * code is none of a connection, and becomes INTERNAL.
 */
export function connectionError(error: unknown, host: string): InferenceError {
  if (error instanceof InferenceError || !(error instanceof Error && 'code' in error))
    return InferenceError.from(error);
  const code = String(error.code);
  if (PERMANENT.test(code)) {
    const sentence = `the connection to "${host}" for the reference is not sound (${code}); use another host`;
    return new InferenceError('REFERENCE_INVALID', sentence, { cause: error });
  }
  return referenceUnavailable(`the connection to "${host}" for the reference failed (${code}); try again later`, error);
}
