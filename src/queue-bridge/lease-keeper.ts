import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import type { JobQueue, Lease } from './queue/job-queue.js';
import { RENEWALS_PER_LEASE } from './reap-window.js';

export interface LeaseKeeperOptions {
  readonly leaseMs: number;
  /** Shortest time between two writes of the progress. */
  readonly progressMs: number;
  /** Names the job in every line. */
  readonly log: Logger;
}

/** Reason for a worker to stop: another worker has the lease, or the job was cancelled. */
export type Interruption = 'lost' | 'cancelled';

/** Renews a lease while its job runs, writes the progress with it, and notices cancels. */
export class LeaseKeeper {
  readonly #queue: JobQueue;
  readonly #lease: Lease;
  readonly #options: LeaseKeeperOptions;
  readonly #abort = new AbortController();
  #interruption: Interruption | undefined;
  #progress: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #renewing: Promise<void> | undefined;
  #renewedAt = performance.now();
  #isStopped = false;
  #problem: string | undefined;

  constructor(queue: JobQueue, lease: Lease, options: LeaseKeeperOptions) {
    this.#queue = queue;
    this.#lease = lease;
    this.#options = options;
    this.#schedule();
  }

  /** Aborted when the worker must stop. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get interruption(): Interruption | undefined {
    return this.#interruption;
  }

  /** Reports the progress of the job. A newer report replaces one that is not written yet. */
  report(progress: Readonly<Record<string, unknown>>): void {
    this.#progress = JSON.stringify(progress);
    this.#schedule();
  }

  /** Stops the renewals. It waits for the one in flight, which must not follow the next write. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#renewing;
  }

  /** Call it when a write found that another worker has the lease. */
  markLost(): void {
    this.#interrupt('lost');
  }

  #schedule(): void {
    if (this.#isStopped || this.#renewing !== undefined) return;
    const { leaseMs, progressMs } = this.#options;
    const every = leaseMs / RENEWALS_PER_LEASE;
    const wait = this.#progress === undefined ? every : Math.min(every, progressMs);
    clearTimeout(this.#timer);
    const sinceRenewal = performance.now() - this.#renewedAt;
    this.#timer = setTimeout(
      () => {
        this.#renewing = this.#renew().finally(() => {
          this.#renewing = undefined;
          this.#schedule();
        });
      },
      Math.max(0, wait - sinceRenewal),
    );
  }

  async #renew(): Promise<void> {
    this.#renewedAt = performance.now();
    const progress = this.#progress;
    this.#progress = undefined;
    const { id, token } = this.#lease;
    const { leaseMs } = this.#options;
    try {
      const held = await this.#queue.heartbeat({ id, token, leaseMs, ...(progress !== undefined && { progress }) });
      this.#problem = undefined;
      if (held !== 'held') this.#interrupt(held);
    } catch (error) {
      // Only the store knows who has the lease: while it refuses or does not answer, the work goes on. If the lease expires and
      // another worker takes it, the next write finds that out.
      this.#noteProblem(InferenceError.from(error).message);
    }
  }

  /** Logs a problem once, until renewing works again. */
  #noteProblem(problem: string): void {
    if (this.#problem === problem) return;
    this.#problem = problem;
    this.#options.log.warn({ problem }, 'lease not renewed');
  }

  #interrupt(interruption: Interruption): void {
    this.#interruption ??= interruption;
    this.#abort.abort(new InferenceError('CANCELLED', `the job was ${interruption}`));
  }
}
