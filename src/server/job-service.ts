import { setImmediate } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import type { Job as JobMessage } from '../gen/darkroom/v1/job.js';
import {
  type JobServiceServer,
  JobServiceService,
  type ListJobsRequest,
  type ListJobsResponse,
  type WatchJobRequest,
  type WatchJobResponse,
} from '../gen/darkroom/v1/job_service.js';
import { Semaphore } from '../std/semaphore.js';
import { wellFormed } from '../std/well-formed.js';
import type { AuditEntry } from './access/audit-log.js';
import type { Caller } from './access/caller.js';
import type { Job } from './jobs/job.js';
import type { ServerState } from './state.js';
import { type CallContext, streaming, unary } from './stream.js';

const DEFAULT_PAGE = 100;
const MAX_PAGE = 1000;
/** Far below the 4 MB that clients take, and little enough to be encoded between two health checks. */
const MAX_PAGE_BYTES = 256 * 1024;
const MAX_TEXT_CHARACTERS = 256;
/** Numbers, ids and names of a job, in bytes. */
const JOB_BYTES = 1024;
const ASSET_BYTES = 128;

export function createJobService(state: ServerState): JobServiceServer {
  // A page takes milliseconds. Other calls have their turn between two pages.
  const pages = new Semaphore(1);
  return {
    watchJob: streaming(state.calls, (request: WatchJobRequest, context) => watchJob(state, request, context)),
    cancelJob: unary(state.calls, ({ jobId }, { caller, peer }) => {
      const job = state.jobs.get(caller, jobId);
      if (job.owner !== caller.name) state.access.audit?.record(cancelOfAnother(job, caller, peer));
      job.cancel(new InferenceError('CANCELLED', 'the job was cancelled by CancelJob'));
      return { job: job.toMessage() };
    }),
    getJob: unary(state.calls, ({ jobId }, { caller }) => ({ job: state.jobs.get(caller, jobId).toMessage() })),
    listJobs: unary(state.calls, (request, { caller }) =>
      pages.run(async () => {
        const page = listJobs(state, caller, request);
        await setImmediate();
        return page;
      }),
    ),
  };
}

async function* watchJob(
  state: ServerState,
  { jobId, afterSequence }: WatchJobRequest,
  { signal, caller }: CallContext,
): AsyncGenerator<WatchJobResponse, void, undefined> {
  const job = state.jobs.get(caller, jobId);
  for await (const event of job.watch(Number(afterSequence), signal)) yield { event };
  if (job.error !== undefined) throw job.error;
}

function listJobs(
  state: ServerState,
  caller: Caller,
  { pageSize, pageToken, states, fullTexts }: ListJobsRequest,
): ListJobsResponse {
  const size = pageSize || DEFAULT_PAGE;
  if (size > MAX_PAGE) {
    const description = `page_size ${size} must be >= 1 and <= ${MAX_PAGE}`;
    throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field: 'page_size', description }] });
  }
  const jobs = state.jobs.list(caller).filter((job) => states.length === 0 || states.includes(job.state));
  // A page starts after the job that the token names. If that job was evicted, the list ends.
  const start = pageToken === '' ? 0 : jobs.findIndex(({ key }) => key === pageToken) + 1;
  const page: JobMessage[] = [];
  let bytes = 0;
  for (const job of start === 0 && pageToken !== '' ? [] : jobs.slice(start, start + size)) {
    const message = fullTexts ? job.toMessage() : withShortTexts(job.toMessage());
    bytes += sizeOf(message);
    // A page has one job at least, however large that is.
    if (page.length > 0 && bytes > MAX_PAGE_BYTES) break;
    page.push(message);
  }
  const last = jobs[start + page.length - 1];
  return { jobs: page, nextPageToken: start + page.length < jobs.length ? (last?.key ?? '') : '' };
}

function cancelOfAnother(job: Job, { name }: Caller, peer: string): AuditEntry {
  return {
    kind: 'admin',
    token: name,
    peer,
    method: JobServiceService.cancelJob.path,
    jobId: job.id,
    subject: job.owner,
  };
}

/** A job whose long texts are cut. */
function withShortTexts(job: JobMessage): JobMessage {
  const { metadata, error } = job;
  const short = (text: string) => wellFormed(text, MAX_TEXT_CHARACTERS);
  return {
    ...job,
    error: error && { ...error, message: short(error.message) },
    metadata: metadata && {
      ...metadata,
      originalPrompt: short(metadata.originalPrompt),
      negativePrompt: short(metadata.negativePrompt),
      enhancedPrompt: metadata.enhancedPrompt && short(metadata.enhancedPrompt),
      weights: metadata.weights && short(metadata.weights),
      promptProblem: metadata.promptProblem && short(metadata.promptProblem),
      referenceProblem: metadata.referenceProblem && short(metadata.referenceProblem),
    },
  };
}

/** Upper bound of a job's size on the wire, in bytes, without encoding it. */
function sizeOf({ assets, metadata, error }: JobMessage): number {
  const texts = [
    error?.message,
    metadata?.originalPrompt,
    metadata?.negativePrompt,
    metadata?.enhancedPrompt,
    metadata?.weights,
    metadata?.promptProblem,
    metadata?.referenceProblem,
  ];
  // A UTF-16 unit has at most three bytes of UTF-8.
  return JOB_BYTES + ASSET_BYTES * assets.length + 3 * texts.reduce((sum, text = '') => sum + text.length, 0);
}
