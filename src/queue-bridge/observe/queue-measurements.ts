import type { JobQueue, QueueMeasurement } from '../queue/job-queue.js';

/** Shortest time between two measurements, in ms. Each is one command, and Upstash bills commands. */
const FRESH_MS = { memory: 0, redis: 5000, upstash: 60_000 } as const;
/** A scrape does not wait longer for a store that does not answer, in ms. */
const WAIT_MS = 2000;

/** Measures a queue for scrapes, one at a time and not too often. */
export class QueueMeasurements {
  readonly #queue: Pick<JobQueue, 'kind' | 'measure'>;
  #last: QueueMeasurement | undefined;
  #running: Promise<void> | undefined;
  #startedAt = 0;
  #measuredAt = Number.NEGATIVE_INFINITY;

  constructor(queue: Pick<JobQueue, 'kind' | 'measure'>) {
    this.#queue = queue;
  }

  /** The last measurement, made now if it is old; undefined if the store does not answer. */
  async current(): Promise<QueueMeasurement | undefined> {
    if (performance.now() - this.#measuredAt >= FRESH_MS[this.#queue.kind]) {
      this.#running ??= this.#measure().finally(() => {
        this.#running = undefined;
      });
      // Scrapes come one after the other: later ones do not wait for the same answer again.
      const waitMs = this.#startedAt + WAIT_MS - performance.now();
      if (waitMs <= 0) return undefined;
      let timer: NodeJS.Timeout | undefined;
      const bound = new Promise<'late'>((resolve) => {
        timer = setTimeout(() => resolve('late'), waitMs);
      });
      const ended = await Promise.race([this.#running, bound]);
      clearTimeout(timer);
      if (ended === 'late') return undefined;
    }
    return this.#last;
  }

  async #measure(): Promise<void> {
    this.#startedAt = performance.now();
    this.#last = await this.#queue.measure().catch(() => undefined);
    this.#measuredAt = performance.now();
  }
}
