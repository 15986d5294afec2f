import { InferenceError } from '../errors.js';
import type {
  JobServiceServer,
  ListJobsRequest,
  WatchJobRequest,
  WatchJobResponse,
} from '../gen/darkroom/v1/job_service.js';
import type { ServerState } from './state.js';
import { type CallContext, streaming, unary } from './stream.js';

const DEFAULT_PAGE = 100;
const MAX_PAGE = 1000;

export function createJobService(state: ServerState): JobServiceServer {
  return {
    watchJob: streaming(state.calls, (request: WatchJobRequest, context) => watchJob(state, request, context)),
    cancelJob: unary(state.calls, ({ jobId }) => {
      const job = state.jobs.get(jobId);
      job.cancel(new InferenceError('CANCELLED', 'the job was cancelled by CancelJob'));
      return { job: job.toMessage() };
    }),
    getJob: unary(state.calls, ({ jobId }) => ({ job: state.jobs.get(jobId).toMessage() })),
    listJobs: unary(state.calls, (request) => listJobs(state, request)),
  };
}

async function* watchJob(
  state: ServerState,
  { jobId, afterSequence }: WatchJobRequest,
  { signal }: CallContext,
): AsyncGenerator<WatchJobResponse, void, undefined> {
  const job = state.jobs.get(jobId);
  for await (const event of job.watch(Number(afterSequence), signal)) yield { event };
  if (job.error !== undefined) throw job.error;
}

function listJobs(state: ServerState, { pageSize, pageToken, states }: ListJobsRequest) {
  const size = pageSize || DEFAULT_PAGE;
  if (size > MAX_PAGE) {
    const description = `page_size ${size} must be >= 1 and <= ${MAX_PAGE}`;
    throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field: 'page_size', description }] });
  }
  const jobs = state.jobs.list().filter((job) => states.length === 0 || states.includes(job.state));
  // A page starts after the job that the token names. If that job was evicted, the list ends.
  const start = pageToken === '' ? 0 : jobs.findIndex(({ id }) => id === pageToken) + 1;
  const page = start === 0 && pageToken !== '' ? [] : jobs.slice(start, start + size);
  return {
    jobs: page.map((job) => job.toMessage()),
    nextPageToken: start + size < jobs.length ? (page.at(-1)?.id ?? '') : '',
  };
}
