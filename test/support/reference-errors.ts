import { expect } from 'vitest';
import { InferenceError } from '../../src/errors.js';

/** The sentence that a reference is refused with, as the caller's fault. */
export async function refusalOf(attempt: Promise<unknown>): Promise<string> {
  const { reason, message } = await errorOf(attempt);
  expect(reason).toBe('REFERENCE_INVALID');
  return message;
}

/** The sentence of a failure that may pass. */
export async function unavailabilityOf(attempt: Promise<unknown>): Promise<string> {
  const { reason, message, retryAfterMs } = await errorOf(attempt);
  expect([reason, retryAfterMs]).toEqual(['REFERENCE_UNAVAILABLE', 5000]);
  return message;
}

async function errorOf(attempt: Promise<unknown>): Promise<InferenceError> {
  const error = await attempt.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (!(error instanceof InferenceError)) throw new Error(`no InferenceError but ${String(error)}`);
  return error;
}
