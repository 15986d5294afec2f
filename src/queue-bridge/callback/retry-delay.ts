export interface RetryDelayOptions {
  /** Before the second try. */
  readonly initialMs: number;
  readonly maxMs: number;
  /** What the other side asked for; omitted: nothing. */
  readonly askedMs?: number | undefined;
}

/** Wait before the next try: doubled each time, at least what was asked for, up to half of it taken off or put on at random. */
export function retryDelayMs(failures: number, { initialMs, maxMs, askedMs = 0 }: RetryDelayOptions): number {
  const doubled = Math.min(maxMs, initialMs * 2 ** Math.min(30, Math.max(0, failures - 1)));
  return askedMs + doubled * (0.5 + Math.random() / 2);
}
