export interface Backoff {
  /** Milliseconds to wait now: doubled each time, up to the maximum, with up to a fifth taken off at random. */
  next(): number;
  reset(): void;
}

export function createBackoff({ initial, max }: { readonly initial: number; readonly max: number }): Backoff {
  let delay = initial;
  return {
    next() {
      const now = delay;
      delay = Math.min(delay * 2, max);
      return now * (1 - 0.2 * Math.random());
    },
    reset() {
      delay = initial;
    },
  };
}
