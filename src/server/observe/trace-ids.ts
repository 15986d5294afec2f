import { traceIdOf } from '../../std/traceparent.js';
import type { Job } from '../jobs/job.js';
import type { ServedCall, ServerObserver } from './server-observer.js';

/**
 * Trace ids of the jobs that have not ended, for the log: a line with a `jobId` gets the job's `traceId`. Where jobs of several owners
 * have the same id, a line does not say whose it is, and gets none.
 */
export class TraceIds implements Partial<ServerObserver> {
  readonly #byJob = new WeakMap<Job, string>();
  /** Jobs by their id. */
  readonly #jobs = new Map<string, readonly Job[]>();

  /** Fields that a log line gets. */
  readonly fieldsOf = (line: object): object => {
    const { jobId } = line as { readonly jobId?: unknown };
    const [job, other] = typeof jobId === 'string' ? (this.#jobs.get(jobId) ?? []) : [];
    const traceId = job === undefined || other !== undefined ? undefined : this.#byJob.get(job);
    return traceId === undefined ? {} : { traceId };
  };

  of(job: Job): string | undefined {
    return this.#byJob.get(job);
  }

  /** Keeps the trace that the server itself began for a job. */
  set(job: Job, traceparent: string): void {
    const traceId = traceIdOf(traceparent);
    if (traceId !== undefined) this.#byJob.set(job, traceId);
  }

  jobAccepted(job: Job, { traceparent }: ServedCall): void {
    this.#jobs.set(job.id, [...(this.#jobs.get(job.id) ?? []), job]);
    if (traceparent !== undefined) this.set(job, traceparent);
  }

  jobEnded(job: Job): void {
    const others = (this.#jobs.get(job.id) ?? []).filter((other) => other !== job);
    if (others.length > 0) this.#jobs.set(job.id, others);
    else this.#jobs.delete(job.id);
  }
}
