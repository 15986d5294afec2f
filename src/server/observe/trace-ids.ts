import { traceIdOf } from '../../std/traceparent.js';
import type { Job } from '../jobs/job.js';
import type { ServedCall, ServerObserver } from './server-observer.js';

/** Trace ids of the jobs that have not ended, for the log: a line with a `jobId` gets the job's `traceId`. */
export class TraceIds implements Partial<ServerObserver> {
  readonly #byJob = new Map<string, string>();

  /** Fields that a log line gets. */
  readonly fieldsOf = (line: object): object => {
    const { jobId } = line as { readonly jobId?: unknown };
    const traceId = typeof jobId === 'string' ? this.#byJob.get(jobId) : undefined;
    return traceId === undefined ? {} : { traceId };
  };

  of(job: Job): string | undefined {
    return this.#byJob.get(job.id);
  }

  /** Keeps the trace that the server itself began for a job. */
  set(job: Job, traceparent: string): void {
    const traceId = traceIdOf(traceparent);
    if (traceId !== undefined) this.#byJob.set(job.id, traceId);
  }

  jobAccepted(job: Job, { traceparent }: ServedCall): void {
    if (traceparent !== undefined) this.set(job, traceparent);
  }

  jobEnded(job: Job): void {
    this.#byJob.delete(job.id);
  }
}
