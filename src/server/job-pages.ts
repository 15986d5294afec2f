import { randomUUID } from 'node:crypto';
import { InferenceError } from '../errors.js';
import type { Job } from './jobs/job.js';

/**
 * Page tokens of ListJobs. A token holds the number of the last job of its page, so the next page starts at the same place even if that
 * job was evicted in between.
 */
export class JobPages {
  /** A token of another run of the server would point to another job. */
  readonly #run = randomUUID().slice(0, 8);
  readonly #numbers = new WeakMap<Job, number>();
  #last = 0;

  /** Numbers the jobs that have no number yet. @param jobs all jobs of the server, newest first */
  number(jobs: readonly Job[]): void {
    const from = jobs.findIndex((job) => this.#numbers.has(job));
    const added = from === -1 ? jobs : jobs.slice(0, from);
    for (const job of added.toReversed()) {
      this.#last += 1;
      this.#numbers.set(job, this.#last);
    }
  }

  /** @returns the token of the page behind a job, which must have a number */
  tokenAfter(job: Job): string {
    return `${this.#run}-${this.#numbers.get(job)}`;
  }

  /**
   * The jobs behind the place that a token names.
   * @param jobs newest first; all of them must have a number
   * @param token empty: all jobs
   * @throws InferenceError INVALID_REQUEST for a token that this run of the server did not send
   */
  after<T extends Job>(jobs: readonly T[], token: string): readonly T[] {
    if (token === '') return jobs;
    const [run, number = '', ...rest] = token.split('-');
    const last = /^\d{1,15}$/.test(number) ? Number(number) : 0;
    if (run !== this.#run || rest.length > 0 || last < 1 || last > this.#last) {
      const description = `page_token "${token.slice(0, 64)}" must be a next_page_token that the server sent since it started; send it empty to begin again`;
      throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field: 'page_token', description }] });
    }
    return jobs.filter((job) => (this.#numbers.get(job) ?? 0) < last);
  }
}
