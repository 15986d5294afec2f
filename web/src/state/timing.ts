import { whenVisible } from './visibility';

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Does something again and again while the tab is visible, until the signal is aborted. @param ms between two times */
export async function repeat(ms: number, signal: AbortSignal, run: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    await whenVisible();
    await run();
    await sleep(ms);
  }
}

/** Does something after a pause. @returns what calls it off, or aborts it */
export function afterPause(ms: number, run: (signal: AbortSignal) => Promise<void>): () => void {
  const abort = new AbortController();
  const timer = setTimeout(() => void run(abort.signal), ms);
  return () => {
    clearTimeout(timer);
    abort.abort();
  };
}
