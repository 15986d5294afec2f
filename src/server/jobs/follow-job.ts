import { InferenceError } from '../../errors.js';
import type { JobEvent } from '../../gen/darkroom/v1/event.js';
import type { Job } from './job.js';

/**
 * Yields a job's events from the first one, for the call that started the job or attached to it.
 * @param signal aborted with an InferenceError when the client left
 * @throws InferenceError the job's failure
 */
export async function* followJob(
  job: Job,
  signal: AbortSignal,
  { cancelsOnLeave }: { readonly cancelsOnLeave: boolean },
): AsyncGenerator<JobEvent, void, undefined> {
  const leave = () => {
    // This stream still counts as a watcher.
    if (cancelsOnLeave && job.watchers <= 1) job.cancel(InferenceError.from(signal.reason));
  };
  signal.addEventListener('abort', leave, { once: true });
  yield* job.watch(0, signal, { fetches: true });
  signal.removeEventListener('abort', leave);
  if (job.error !== undefined) throw job.error;
}
