import { setImmediate } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import { type Job as JobMessage, JobState } from '../gen/darkroom/v1/job.js';
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
import { JobPages } from './job-pages.js';
import type { Job } from './jobs/job.js';
import { isEnumValue } from './request/enum-values.js';
import { assertNoViolations, createCheck } from './request/field-checks.js';
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
  const turns = new Semaphore(1);
  const pages = new JobPages(state.jobs);
  return {
    watchJob: streaming(state.calls, (request: WatchJobRequest, context) => watchJob(state, request, context)),
    cancelJob: unary(state.calls, ({ jobId }, { caller, peer }) => {
      const job = jobNamed(state, caller, jobId);
      if (job.owner !== caller.name) state.access.audit?.record(cancelOfAnother(job, caller, peer));
      job.cancel(new InferenceError('CANCELLED', 'the job was cancelled by CancelJob'));
      return { job: job.toMessage() };
    }),
    getJob: unary(state.calls, ({ jobId }, { caller }) => ({ job: jobNamed(state, caller, jobId).toMessage() })),
    listJobs: unary(state.calls, (request, { caller }) =>
      turns.run(async () => {
        const page = listJobs(state, pages, caller, request);
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
  const job = jobNamed(state, caller, jobId);
  for await (const event of job.watch(Number(afterSequence), signal)) yield { event };
  if (job.error !== undefined) throw job.error;
}

/** @throws InferenceError INVALID_REQUEST for an empty id, JOB_NOT_FOUND for one that is not known */
function jobNamed({ jobs }: ServerState, caller: Caller, jobId: string): Job {
  const { check, violations } = createCheck();
  check(jobId !== '', 'job_id', 'job_id must be set: the id of the job, as Generate or ListJobs returns it');
  assertNoViolations(violations);
  return jobs.get(caller, jobId);
}

function listJobs(
  state: ServerState,
  pages: JobPages,
  caller: Caller,
  { pageSize, pageToken, states, fullTexts }: ListJobsRequest,
): ListJobsResponse {
  const { check, violations } = createCheck();
  check(
    pageSize <= MAX_PAGE,
    'page_size',
    `page_size ${pageSize} must be >= 0 and <= ${MAX_PAGE}; 0 takes ${DEFAULT_PAGE}`,
  );
  const bad = states.findIndex((it) => it === JobState.JOB_STATE_UNSPECIFIED || !isEnumValue(JobState, it));
  const bound = 'must be a state of jobs, such as JOB_STATE_RUNNING; leave states empty for all';
  check(bad === -1, `states[${bad}]`, `states[${bad}] ${states[bad]} ${bound}`);
  assertNoViolations(violations);
  const known = pages.after(state.jobs.list(caller), pageToken);
  const jobs = known.filter((job) => states.length === 0 || states.includes(job.state));
  const page: JobMessage[] = [];
  let bytes = 0;
  for (const job of jobs.slice(0, pageSize || DEFAULT_PAGE)) {
    const message = fullTexts ? job.toMessage() : withShortTexts(job.toMessage());
    bytes += sizeOf(message);
    // A page has one job at least, however large that is.
    if (page.length > 0 && bytes > MAX_PAGE_BYTES) break;
    page.push(message);
  }
  const last = jobs[page.length - 1];
  return { jobs: page, nextPageToken: last && page.length < jobs.length ? pages.tokenAfter(last) : '' };
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
