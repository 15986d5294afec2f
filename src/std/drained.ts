import { once } from 'node:events';

/** Waits until a stream takes more, or the signal is aborted. */
export async function drained(stream: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  await once(stream, 'drain', { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}
