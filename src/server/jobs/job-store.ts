import { InferenceError } from '../../errors.js';
import { type Caller, seesAllJobs } from '../access/caller.js';
import { type Job, jobKey } from './job.js';

export interface RetentionLimits {
  /** Largest number of ended jobs that are kept. */
  readonly maxJobs: number;
  /** Largest memory that they hold together, in bytes: files, events and texts. */
  readonly maxBytes: number;
}

/** All jobs by key, oldest first. A caller has its own jobs, and does not learn of others; an admin sees all.
 * Ended jobs are evicted in the order of their end when newer ones need the room. */
export class JobStore {
  readonly #limits: RetentionLimits;
  readonly #jobs = new Map<string, Job>();
  /** Ended jobs and the memory that each one holds, in the order of their end. */
  readonly #finished = new Map<Job, number>();
  #finishedBytes = 0;
  #added = 0;
  /** Jobs of each owner that wait or run. */
  readonly #inFlight = new Map<string, number>();

  constructor(limits: RetentionLimits) {
    this.#limits = limits;
  }

  /**
   * Finds the job that a call attaches to: the job id is the idempotency key. A job that failed with a retryable error
   * does not count, so that a client can retry under the same id.
   * @returns undefined if the id is empty, new, or free again
   * @throws InferenceError JOB_ID_CONFLICT if the id belongs to a job with another body
   */
  attach({ name }: Caller, id: string, requestHash: string): Job | undefined {
    const known = id === '' ? undefined : this.#jobs.get(jobKey(name, id));
    if (known === undefined) return undefined;
    if (known.requestHash === requestHash) return known.error?.retryable ? undefined : known;
    throw new InferenceError(
      'JOB_ID_CONFLICT',
      `job_id "${id}" belongs to a job with another body; use a new id, or send the same body to attach`,
    );
  }

  /** @throws InferenceError JOB_NOT_FOUND, also for another caller's job */
  get(caller: Caller, id: string): Job {
    const own = this.#jobs.get(jobKey(caller.name, id));
    const job = own ?? (seesAllJobs(caller) ? this.#all().find((other) => other.id === id) : undefined);
    if (job !== undefined) return job;
    throw new InferenceError(
      'JOB_NOT_FOUND',
      `job_id "${id.slice(0, 128)}" is not known; it never was, it ended long ago and newer jobs took its room, or the server was started again since`,
    );
  }

  /** Adds a job. It replaces an ended job with the same id. */
  add(job: Job): void {
    this.#added += 1;
    job.number = this.#added;
    this.#jobs.delete(job.key);
    this.#jobs.set(job.key, job);
    this.#inFlight.set(job.owner, this.inFlight(job.owner) + 1);
  }

  /** Number of jobs that were added so far, the number of the last one. */
  get added(): number {
    return this.#added;
  }

  /** Number of jobs of an owner that wait or run. */
  inFlight(owner: string): number {
    return this.#inFlight.get(owner) ?? 0;
  }

  /** Marks a job as ended: from now on it may be evicted. */
  finish(job: Job): void {
    job.releaseInputs();
    const inFlight = this.inFlight(job.owner) - 1;
    if (inFlight > 0) this.#inFlight.set(job.owner, inFlight);
    else this.#inFlight.delete(job.owner);
    const held = job.heldBytes;
    this.#finished.set(job, held);
    this.#finishedBytes += held;
    for (const [oldest, bytes] of this.#finished) {
      const fits = this.#finished.size <= this.#limits.maxJobs && this.#finishedBytes <= this.#limits.maxBytes;
      // The newest job stays whatever its size: its client may be about to read it.
      if (fits || oldest === job) return;
      this.#finished.delete(oldest);
      this.#finishedBytes -= bytes;
      if (this.#jobs.get(oldest.key) === oldest) this.#jobs.delete(oldest.key);
    }
  }

  /** The jobs that a caller sees, newest first. */
  list(caller: Caller): readonly Job[] {
    const all = this.#all();
    return seesAllJobs(caller) ? all : all.filter(({ owner }) => owner === caller.name);
  }

  /** Number of jobs that completed since then, and whose result nobody has fetched. */
  unfetched(since: Date): number {
    return this.#all().filter(
      ({ metadata, endTime, wasFetched }) => metadata && !wasFetched && endTime && endTime >= since,
    ).length;
  }

  /** Ends every job that waits or runs. */
  cancelAll(reason: InferenceError): void {
    for (const job of this.#jobs.values()) job.cancel(reason);
  }

  #all(): readonly Job[] {
    return [...this.#jobs.values()].reverse();
  }
}
