import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import {
  cancelJob,
  type DarkroomClient,
  estimate,
  generate,
  getJob,
  listJobs,
  listModels,
  serverStatus,
  tokenize,
  watchJob,
} from '../client/client.js';
import { InferenceError } from '../errors.js';
import { EstimateResponse, type GenerateRequest, TokenizeResponse } from '../gen/darkroom/v1/inference_service.js';
import { Job, JobState } from '../gen/darkroom/v1/job.js';
import { ListJobsResponse } from '../gen/darkroom/v1/job_service.js';
import { GetServerStatusResponse, ListModelsResponse } from '../gen/darkroom/v1/model_service.js';
import { contractJobTypes } from '../job-types.js';
import { version } from '../version.js';
import { AdminCheck } from './admin-check.js';
import { ANSWER_MS, type Callers } from './callers.js';
import { eventStream } from './event-stream.js';
import { type JobFiles, thumbnail } from './job-files.js';
import { jobRequest, parseBody, replayRequest, tokenizeRequest } from './job-request.js';
import type { QueueOperations } from './queue-operations.js';

/** Two references of 20 MiB in base64, and the rest of the request. */
const MAX_JOB_BYTES = 64 * 2 ** 20;
/** Thumbnails of other sizes are not made, so that none is made twice. */
const THUMBNAIL_PIXELS = 256;

export interface ApiOptions {
  readonly callers: Callers;
  readonly files: JobFiles;
  /** Omitted: there is no queue to show. */
  readonly queue?: QueueOperations | undefined;
}

type WithId = FastifyRequest<{ Params: { id: string } }>;

const listQuery = z.strictObject({
  pageSize: z.coerce.number().int().min(1).max(1000).default(100),
  pageToken: z.string().default(''),
  states: z
    .string()
    .default('')
    .transform((text) => text.split(',').flatMap((name) => name.trim() || []))
    .pipe(z.array(z.enum(['queued', 'running', 'completed', 'failed', 'cancelled']))),
});

const FILE_INDEX = 'must be the index of a file, 0 to 1000';
const fileIndex = z.coerce.number({ error: FILE_INDEX }).int(FILE_INDEX).min(0, FILE_INDEX).max(1000, FILE_INDEX);

const sequence = z.coerce.string().regex(/^\d{1,19}$/, 'must be the sequence number of an event');

/** Adds the routes of /api: the proto's methods as JSON, and the events of jobs as server-sent events. */
export function addApi(app: FastifyInstance, { callers, files, queue }: ApiOptions): void {
  const admins = new AdminCheck();
  const client = (request: FastifyRequest): Promise<DarkroomClient> => callers.clientOf(request);

  app.get('/api/about', async () => ({
    version,
    hasQueue: queue !== undefined,
    jobTypes: [...contractJobTypes.values()].map(({ name, family, makes, steps, guidanceScale, isEnhanced }) => ({
      name,
      family,
      makes,
      steps,
      guidanceScale,
      isEnhanced,
    })),
  }));

  app.get('/api/status', async (request) =>
    GetServerStatusResponse.toJSON(await serverStatus(await client(request), ANSWER_MS)),
  );
  app.get('/api/models', async (request) =>
    ListModelsResponse.toJSON(await listModels(await client(request), ANSWER_MS)),
  );
  app.post('/api/tokenize', async (request) =>
    TokenizeResponse.toJSON(await tokenize(await client(request), tokenizeRequest(request.body))),
  );
  app.post('/api/estimate', { bodyLimit: MAX_JOB_BYTES }, async (request) =>
    EstimateResponse.toJSON(await estimate(await client(request), jobRequest(request.body))),
  );

  app.post('/api/jobs', { bodyLimit: MAX_JOB_BYTES }, async (request, reply) => {
    const jobId = await startJob(await client(request), jobRequest(request.body));
    return reply
      .code(202)
      .header('location', `/api/jobs/${encodeURIComponent(jobId)}`)
      .send({ jobId });
  });
  app.get('/api/jobs', async (request) => {
    const { states, ...page } = parseBody(listQuery, request.query);
    const wanted = states.map((name) => JobState[`JOB_STATE_${name.toUpperCase()}` as keyof typeof JobState]);
    return ListJobsResponse.toJSON(await listJobs(await client(request), { ...page, states: wanted }, ANSWER_MS));
  });
  app.get('/api/jobs/:id', async (request: WithId) => jobOf(await client(request), request.params.id));
  app.post('/api/jobs/:id/cancel', async (request: WithId) => {
    const caller = await client(request);
    await cancelJob(caller, request.params.id, ANSWER_MS);
    return jobOf(caller, request.params.id);
  });

  app.get(
    '/api/jobs/:id/events',
    async (request: FastifyRequest<{ Params: { id: string }; Querystring: { after?: string } }>, reply) => {
      const after = parseBody(
        sequence,
        request.headers['last-event-id'] ?? request.query.after ?? '0',
        'Last-Event-ID',
      );
      const caller = await client(request);
      // Errors of a job that is not there have an HTTP status, as long as nothing was sent.
      await jobOf(caller, request.params.id);
      const abort = new AbortController();
      const events = watchJob(caller, request.params.id, BigInt(after), abort.signal);
      return reply
        .type('text/event-stream')
        .header('cache-control', 'no-store')
        .header('x-accel-buffering', 'no')
        .send(eventStream(events, () => abort.abort()));
    },
  );

  app.get(
    '/api/jobs/:id/files/:index',
    async (
      request: FastifyRequest<{ Params: { id: string; index: string }; Querystring: { size?: string } }>,
      reply,
    ) => {
      const { id, index } = request.params;
      const at = parseBody(fileIndex, index, 'file');
      const { asset, data } = await files.read(await client(request), id, at);
      const isSmall = request.query.size === 'thumbnail' && asset.contentType.startsWith('image/');
      const body = isSmall ? await thumbnail(data, THUMBNAIL_PIXELS) : data;
      return reply
        .type(isSmall ? 'image/webp' : asset.contentType)
        .header('cache-control', 'private, max-age=300')
        .header('vary', 'authorization')
        .header('etag', `"${asset.sha256.toString('hex')}${isSmall ? '-t' : ''}"`)
        .send(body);
    },
  );

  app.get('/api/queue', async (request) => {
    await admins.assertAdmin(await client(request));
    return queueOf(queue).overview();
  });
  app.post('/api/queue/replay', async (request) => {
    await admins.assertAdmin(await client(request));
    const { id, callbackOnly } = replayRequest(request.body);
    return { result: await queueOf(queue).replay(id, callbackOnly) };
  });
}

/** Starts a job and returns its id once the server accepted it. The job goes on without this call. */
async function startJob(client: DarkroomClient, request: Partial<GenerateRequest>): Promise<string> {
  for await (const { jobId } of generate(client, request)) return jobId;
  throw new InferenceError('INTERNAL', 'the server ended the call without an event');
}

async function jobOf(client: DarkroomClient, id: string): Promise<unknown> {
  const job = await getJob(client, id, ANSWER_MS);
  if (job === undefined) throw new InferenceError('JOB_NOT_FOUND', `job "${id}" is not known`);
  return Job.toJSON(job);
}

function queueOf(queue: QueueOperations | undefined): QueueOperations {
  if (queue !== undefined) return queue;
  throw new InferenceError(
    'JOB_NOT_FOUND',
    'there is no queue here: set REDIS_URL, or UPSTASH_REDIS_REST_URL and its token',
  );
}
