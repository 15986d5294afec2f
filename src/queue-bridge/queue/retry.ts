import { setTimeout as sleep } from 'node:timers/promises';
import { InferenceError } from '../../errors.js';
import { createBackoff } from '../../std/backoff.js';

export interface RetryOptions {
  /** Name of the store, for the message. */
  readonly store: string;
  /** Time after which the caller gets the error. */
  readonly patienceMs: number;
  /** True if a retry may succeed. Other errors are thrown at once. */
  readonly isTemporary: (error: unknown) => boolean;
  /** Ends the waiting. */
  readonly signal: AbortSignal;
}

/**
 * Repeats a request until the store answers. Every request must be safe to repeat.
 * @throws InferenceError UNREACHABLE after `patienceMs`, or when the signal is aborted
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
