import { expect } from 'vitest';
import { InferenceError } from '../../src/errors.js';

/** The message of a rejected reference. */
export async function refusalOf(attempt: Promise<unknown>): Promise<string> {
  const { reason, message } = await errorOf(attempt);
  expect(reason).toBe('REFERENCE_INVALID');
  return message;
}

/** The message of a failure after which a retry may succeed. */
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
