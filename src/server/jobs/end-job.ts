import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';
import { hideInternals } from '../../rpc/status.js';
import type { ServerObserver } from '../observe/server-observer.js';
import type { Job } from './job.js';
import type { JobStore } from './job-store.js';

/**
 * Ends a job. Jobs of Generate and of Enhance all end here, once each.
 * @param error what ended it early; undefined where it completed
 */
export function endJob(
  job: Job,
  error: unknown,
  { log, jobs, observer }: { log: Logger; jobs: JobStore; observer: ServerObserver },
): void {
  const failure = error === undefined ? undefined : InferenceError.from(error);
  if (failure !== undefined) job.fail(hideInternals(failure, log));
  // What the caller is not told: the path of a file, for example.
  const detail = failure?.cause instanceof InferenceError ? failure.cause.message : undefined;
  const { id: jobId, model, assets } = job;
  const ms = Date.now() - job.createTime.getTime();
  log.info({ jobId, model, ms, images: assets.length, reason: job.error?.reason, detail }, 'job ended');
  jobs.finish(job);
  observer.jobEnded(job);
}
