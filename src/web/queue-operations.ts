/** A job of the bridge's queue, as operators see it. Times are milliseconds since 1970. */
export interface QueuedJob {
  readonly id: string;
  readonly state: string;
  readonly type: string;
  readonly user: string;
  readonly attempts: number;
  readonly createdAt: number | undefined;
  readonly worker: string | undefined;
  /** Why its last attempt ended, or why its callback failed. */
  readonly problem: string | undefined;
}

export interface QueueOverview {
  /** Numbers of jobs, callbacks and payloads by their state. */
  readonly counts: Readonly<Record<string, number>>;
  /** Waiting jobs of each user, most first. */
  readonly lines: readonly { readonly user: string; readonly waiting: number }[];
  readonly leased: readonly QueuedJob[];
  readonly dead: readonly QueuedJob[];
  readonly deadCallbacks: readonly QueuedJob[];
  /** Payloads without a usable id. */
  readonly rejected: readonly { readonly problem: string; readonly rejectedAt: string }[];
}

/** What the page shows and does of a bridge's queue. */
export interface QueueOperations {
  /** @throws InferenceError UNREACHABLE if the store does not answer */
  overview(): Promise<QueueOverview>;
  /** Runs a job again; `callbackOnly` repeats its callback instead. @returns what became of it, in words */
  replay(id: string, callbackOnly: boolean): Promise<string>;
}
