import { InferenceError } from '../../errors.js';
import type { Job } from './job.js';

export interface RetentionLimits {
  /** Finished jobs that are kept. */
  readonly maxJobs: number;
  /** Bytes of their files. */
  readonly maxBytes: number;
}

/** All jobs by id, oldest first. Finished ones are forgotten, the one that ended first first, when newer ones need the room. */
export class JobStore {
  readonly #limits: RetentionLimits;
  readonly #jobs = new Map<string, Job>();
  readonly #finished = new Set<Job>();
  #finishedBytes = 0;

  constructor(limits: RetentionLimits) {
    this.#limits = limits;
  }

  /**
   * The job that a call attaches to: its id is the idempotency key. One that failed for a reason that may pass is not: it is
   * tried anew under the id that its client knows it by.
   * @returns undefined where the id is empty, new, or free again
   * @throws InferenceError JOB_ID_CONFLICT where it belongs to another request
   */
  attach(id: string, requestHash: string): Job | undefined {
    const known = id === '' ? undefined : this.#jobs.get(id);
    if (known === undefined) return undefined;
    if (known.requestHash === requestHash) return known.error?.retryable ? undefined : known;
    throw new InferenceError(
      'JOB_ID_CONFLICT',
      `job_id "${id}" belongs to a job with another body; use a new id, or send the same body to attach`,
    );
  }

  /** @throws InferenceError JOB_NOT_FOUND */
  get(id: string): Job {
    const job = this.#jobs.get(id);
    if (job !== undefined) return job;
    throw new InferenceError(
      'JOB_NOT_FOUND',
      `job_id "${id.slice(0, 128)}" is not known; it never was, or it ended long ago and newer jobs took its room`,
    );
  }

  /** A job that ended and has the same id is replaced. */
  add(job: Job): void {
    this.#jobs.delete(job.id);
    this.#jobs.set(job.id, job);
  }

  /** Tells that a job ended: from now on it may be forgotten. */
  finish(job: Job): void {
    this.#finished.add(job);
    this.#finishedBytes += job.assetBytes;
    for (const oldest of this.#finished) {
      const fits = this.#finished.size <= this.#limits.maxJobs && this.#finishedBytes <= this.#limits.maxBytes;
      // The newest stays whatever its size: its own client may be about to read it.
      if (fits || oldest === job) return;
      this.#finished.delete(oldest);
      this.#finishedBytes -= oldest.assetBytes;
      if (this.#jobs.get(oldest.id) === oldest) this.#jobs.delete(oldest.id);
    }
  }

  /** Newest first. */
  list(): readonly Job[] {
    return [...this.#jobs.values()].reverse();
  }
}
