import type { Held, Settlement, UsageDelivery } from './job-queue.js';

interface Entry extends Pick<UsageDelivery, 'id' | 'run' | 'body' | 'traceparent'> {
  attempts: number;
  /** Times in milliseconds since 1970. */
  since: number;
  dueAt: number;
  token: string;
  /** When a record that was given up is forgotten. */
  deadUntil?: number;
}

/** Usage records of a queue in this process. */
export class MemoryUsage {
  /** By job and run. */
  readonly #entries = new Map<string, Entry>();

  /** Number of records that are not delivered. */
  get size(): number {
    return this.#alive.length;
  }

  /** Records that were given up, as `<id>:<run>`. */
  get dead(): readonly string[] {
    const now = Date.now();
    for (const [key, { deadUntil }] of this.#entries) {
      if (deadUntil !== undefined && deadUntil <= now) this.#entries.delete(key);
    }
    return [...this.#entries].filter(([, { deadUntil }]) => deadUntil !== undefined).map(([key]) => key);
  }

  add(record: Pick<UsageDelivery, 'id' | 'run' | 'body' | 'traceparent'>): void {
    const now = Date.now();
    this.#entries.set(keyOf(record), { ...record, attempts: 0, since: now, dueAt: now, token: '' });
  }

  due(now: number): number {
    return this.#alive.filter(({ dueAt }) => dueAt <= now).length;
  }

  /** Time when the next record becomes due, of those that are not yet. */
  nextDue(now: number): number | undefined {
    return least(this.#alive.map(({ dueAt }) => dueAt).filter((dueAt) => dueAt > now));
  }

  /** Time since when the oldest record is due. */
  oldest(): number | undefined {
    return least(this.#alive.map(({ since }) => since));
  }

  take(token: string, most: number, leaseMs: number): readonly UsageDelivery[] {
    const now = Date.now();
    const ready = this.#alive.filter(({ dueAt }) => dueAt <= now).sort((a, b) => a.dueAt - b.dueAt);
    return ready.slice(0, most).map((entry) => {
      entry.token = token;
      entry.dueAt = now + leaseMs;
      const { id, run, body, attempts, traceparent, since } = entry;
      return { id, run, token, body, attempts, traceparent, ageMs: now - since };
    });
  }

  settle(delivery: Pick<UsageDelivery, 'id' | 'run' | 'token'>, settlement: Settlement, retentionMs: number): Held {
    const entry = this.#entries.get(keyOf(delivery));
    if (entry === undefined || entry.token !== delivery.token) return 'lost';
    entry.token = '';
    if (settlement.kind === 'delivered') {
      this.#entries.delete(keyOf(delivery));
    } else if (settlement.kind === 'dead') {
      entry.deadUntil = Date.now() + retentionMs;
    } else {
      entry.attempts += 1;
      entry.dueAt = Date.now() + settlement.delayMs;
    }
    return 'held';
  }

  /** Makes a job's records due again that were given up. */
  revive(id: string): void {
    const now = Date.now();
    for (const entry of this.#entries.values()) {
      if (entry.id !== id || entry.deadUntil === undefined) continue;
      delete entry.deadUntil;
      Object.assign(entry, { attempts: 0, since: now, dueAt: now });
    }
  }

  get #alive(): Entry[] {
    return [...this.#entries.values()].filter(({ deadUntil }) => deadUntil === undefined);
  }
}

function keyOf({ id, run }: { readonly id: string; readonly run: number }): string {
  return `${id}:${run}`;
}

function least(times: readonly number[]): number | undefined {
  return times.length === 0 ? undefined : Math.min(...times);
}
