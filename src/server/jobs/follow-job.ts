import { InferenceError } from '../../errors.js';
import type { JobEvent } from '../../gen/darkroom/v1/event.js';
import type { Job } from './job.js';

/**
 * A job's events from the first one, for the stream of the call that started it or attached to it.
 * @param signal aborted when the client left, with the InferenceError that says how
 * @throws InferenceError what the job failed with
 */
export async function* followJob(
  job: Job,
  signal: AbortSignal,
  { cancelsOnLeave }: { readonly cancelsOnLeave: boolean },
): AsyncGenerator<JobEvent, void, undefined> {
  const leave = () => {
    // This stream still counts among the watchers.
    if (cancelsOnLeave && job.watchers <= 1) job.cancel(InferenceError.from(signal.reason));
  };
  signal.addEventListener('abort', leave, { once: true });
  yield* job.watch(0, signal);
  signal.removeEventListener('abort', leave);
  if (job.error !== undefined) throw job.error;
}
