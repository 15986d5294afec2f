import { InferenceError } from '../../errors.js';
import type { Job } from './job.js';

export interface RetentionLimits {
  /** Largest number of ended jobs that are kept. */
  readonly maxJobs: number;
  /** Largest memory that they hold together, in bytes: files, events and texts. */
  readonly maxBytes: number;
}

/** All jobs by id, oldest first. Ended jobs are evicted in the order of their end when newer ones need the room. */
export class JobStore {
  readonly #limits: RetentionLimits;
  readonly #jobs = new Map<string, Job>();
  /** Ended jobs and the memory that each one holds, in the order of their end. */
  readonly #finished = new Map<Job, number>();
  #finishedBytes = 0;

  constructor(limits: RetentionLimits) {
    this.#limits = limits;
  }

  /**
   * Finds the job that a call attaches to: the job id is the idempotency key. A job that failed with a retryable error
   * does not count, so that a client can retry under the same id.
   * @returns undefined if the id is empty, new, or free again
   * @throws InferenceError JOB_ID_CONFLICT if the id belongs to a job with another body
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

  /** Adds a job. It replaces an ended job with the same id. */
  add(job: Job): void {
    this.#jobs.delete(job.id);
    this.#jobs.set(job.id, job);
  }

  /** Marks a job as ended: from now on it may be evicted. */
  finish(job: Job): void {
    job.releaseInputs();
    const held = job.heldBytes;
    this.#finished.set(job, held);
    this.#finishedBytes += held;
    for (const [oldest, bytes] of this.#finished) {
      const fits = this.#finished.size <= this.#limits.maxJobs && this.#finishedBytes <= this.#limits.maxBytes;
      // The newest job stays whatever its size: its client may be about to read it.
      if (fits || oldest === job) return;
      this.#finished.delete(oldest);
      this.#finishedBytes -= bytes;
      if (this.#jobs.get(oldest.id) === oldest) this.#jobs.delete(oldest.id);
    }
  }

  /** Newest first. */
  list(): readonly Job[] {
    return [...this.#jobs.values()].reverse();
  }
}
