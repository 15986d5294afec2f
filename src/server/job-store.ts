import { InferenceError } from '../errors.js';
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

  find(id: string): Job | undefined {
    return this.#jobs.get(id);
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
