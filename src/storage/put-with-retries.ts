import { setTimeout as sleep } from 'node:timers/promises';
import { createBackoff } from '../std/backoff.js';

const TRIES = 4;

/**
 * Tries a few times in a row; what still fails then is for the job's own, longer retries. A request that is wrong in itself costs
 * two seconds by this, and a store's hiccup costs no rendering.
 */
export async function putWithRetries<T>(put: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
  const backoff = createBackoff({ initial: 200, max: 2000 });
  for (let tries = 1; ; tries += 1) {
    try {
      return await put(signal);
    } catch (error) {
      if (tries === TRIES || signal.aborted) throw error;
      await sleep(backoff.next(), undefined, { signal }).catch(() => undefined);
    }
  }
}
