import { setTimeout as sleep } from 'node:timers/promises';
import { createBackoff } from '../std/backoff.js';

const MAX_TRIES = 4;

/**
 * Tries four times in a row, over about two seconds, so that a short failure of the store does not cost an attempt of the job. The
 * job's own retries, with longer delays, handle what still fails.
 */
export async function putWithRetries<T>(put: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
  const backoff = createBackoff({ initial: 200, max: 2000 });
  for (let tries = 1; ; tries += 1) {
    try {
      return await put(signal);
    } catch (error) {
      if (tries === MAX_TRIES || signal.aborted) throw error;
      await sleep(backoff.next(), undefined, { signal }).catch(() => undefined);
    }
  }
}
