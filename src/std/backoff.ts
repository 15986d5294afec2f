export interface BackoffOptions {
  /** Delay after the first failure, in ms. */
  readonly initial: number;
  readonly max: number;
}

export interface Backoff {
  /** Delay before the next attempt, in ms. */
  next(): number;
  /** Starts over after a success. */
  reset(): void;
}

/** Takes up to a fifth off a delay at random, so that clients that failed together do not retry together. */
function withJitter(ms: number): number {
  return ms * (1 - 0.2 * Math.random());
}

/** Delay after that many failures, in ms: doubled with each one up to the maximum, with jitter. */
export function backoffMs(failures: number, { initial, max }: BackoffOptions): number {
  return withJitter(Math.min(max, initial * 2 ** Math.max(0, failures - 1)));
}

/** Counts the failures. */
export function createBackoff(options: BackoffOptions): Backoff {
  let failures = 0;
  return {
    next() {
      failures += 1;
      return backoffMs(failures, options);
    },
    reset() {
      failures = 0;
    },
  };
}
