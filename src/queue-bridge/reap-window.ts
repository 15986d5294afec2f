import type { Reaping } from './queue/job-queue.js';

/** Renewals within the length of a lease. */
export const RENEWALS_PER_LEASE = 3;
/** Shortest delay of a poll that counts as an outage, in ms. */
const MIN_SLACK_MS = 2000;
/** Part of a longer delay that the next poll is still granted. */
const SLACK_KEPT = 0.9;

/**
 * When a bridge may requeue jobs of expired leases, by the clock of the store. While the store is away, bridges cannot renew, and all
 * leases expire. A bridge whose polls were not answered for longer than a renewal takes therefore waits for one lease before it reaps:
 * in this time every bridge that lives renews its leases, and jobs of one that is really gone are only taken over later.
 */
export class ReapWindow {
  readonly #leaseMs: number;
  /** Delay of a poll that counts as an outage. */
  #slackMs: number;
  #from = 0;
  #until = Number.MAX_SAFE_INTEGER;
  #answeredAt: number | undefined;

  constructor(leaseMs: number) {
    this.#leaseMs = leaseMs;
    this.#slackMs = this.#leastSlackMs;
  }

  get #leastSlackMs(): number {
    return Math.max(MIN_SLACK_MS, this.#leaseMs / RENEWALS_PER_LEASE);
  }

  /** Bounds for the next poll. A poll that the store runs after `until` was on its way during an outage. */
  get reaping(): Reaping {
    return { from: this.#from, until: this.#until, graceMs: this.#leaseMs };
  }

  /** Call it after each poll. @param now time of the store */
  answered(now: number): void {
    const isLate = now > this.#until;
    // A store that is always slow is not away: its delay becomes the rule, and is forgotten slowly.
    const delay = isLate ? 2 * (now - (this.#answeredAt ?? now)) : this.#slackMs * SLACK_KEPT;
    this.#slackMs = Math.max(this.#leastSlackMs, Math.min(delay, this.#leaseMs));
    // A clock that went forward and back again leaves nothing behind.
    this.#from = isLate ? now + this.#leaseMs : Math.min(this.#from, now + this.#leaseMs);
    this.#until = now + this.#slackMs;
    this.#answeredAt = now;
  }

  /** Call it when the next poll is that much later because there is no work. */
  waits(ms: number): void {
    this.#until += ms;
  }
}
