import { randomUUID } from 'node:crypto';
import { InferenceError } from '../errors.js';
import type { Job } from './jobs/job.js';
import type { JobStore } from './jobs/job-store.js';

/**
 * Page tokens of ListJobs. A token holds the number of the last job of its page, so the next page starts at the same place even if that
 * job was evicted in between.
 */
export class JobPages {
  readonly #jobs: JobStore;
  /** A token of another run of the server would point to another job. */
  readonly #run = randomUUID().slice(0, 8);

  constructor(jobs: JobStore) {
    this.#jobs = jobs;
  }

  /** @returns the token of the page behind a job */
  tokenAfter({ number }: Job): string {
    return `${this.#run}-${number}`;
  }

  /**
   * The jobs behind the place that a token names.
   * @param token empty: all jobs
   * @throws InferenceError INVALID_REQUEST for a token that this run of the server did not send
   */
  after(jobs: readonly Job[], token: string): readonly Job[] {
    if (token === '') return jobs;
    const [run, digits = '', ...rest] = token.split('-');
    const last = /^\d{1,15}$/.test(digits) ? Number(digits) : 0;
    if (run !== this.#run || rest.length > 0 || last < 1 || last > this.#jobs.added) {
      const description = `page_token "${token.slice(0, 64)}" must be a next_page_token that the server sent since it started; send it empty to begin again`;
      throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field: 'page_token', description }] });
    }
    return jobs.filter(({ number }) => number < last);
  }
}
