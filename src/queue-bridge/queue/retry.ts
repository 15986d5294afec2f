import { setTimeout as sleep } from 'node:timers/promises';
import { InferenceError } from '../../errors.js';
import { createBackoff } from '../../std/backoff.js';

export interface RetryOptions {
  /** Of the store, for the message. */
  readonly store: string;
  /** A store that is gone for longer is told to whoever waits. */
  readonly patienceMs: number;
  /** Whether a failure may pass; others are thrown at once. */
  readonly isTemporary: (error: unknown) => boolean;
  /** Ends the waiting. */
  readonly signal: AbortSignal;
}

/**
 * Asks again until a store answers: everything that is asked is safe to repeat.
 * @throws InferenceError UNREACHABLE after that time, or when the signal ends the waiting
 */
export async function retry<T>(
  ask: () => Promise<T>,
  { store, patienceMs, isTemporary, signal }: RetryOptions,
): Promise<T> {
  const backoff = createBackoff({ initial: 25, max: 1000 });
  const until = Date.now() + patienceMs;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!isTemporary(error)) throw error;
      if (signal.aborted || Date.now() > until) {
        const problem = error instanceof Error ? error.message : String(error);
        throw new InferenceError('UNREACHABLE', `${store} does not answer: ${problem}`, { cause: error });
      }
      await sleep(backoff.next(), undefined, { signal }).catch(() => undefined);
    }
  }
}
