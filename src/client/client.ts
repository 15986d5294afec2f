import { readFileSync } from 'node:fs';
import {
  type ChannelInterface,
  type ClientOptions,
  type ClientReadableStream,
  connectivityState,
  type Metadata,
  Metadata as MetadataClass,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { InferenceError } from '../errors.js';
import type { JobEvent } from '../gen/darkroom/v1/event.js';
import {
  EnhanceRequest,
  type EnhanceResponse,
  type EstimateResponse,
  GenerateRequest,
  InferenceServiceClient,
  TokenizeRequest,
  type TokenizeResponse,
} from '../gen/darkroom/v1/inference_service.js';
import type { Job } from '../gen/darkroom/v1/job.js';
import {
  type CancelJobResponse,
  type GetJobResponse,
  JobServiceClient,
  ListJobsRequest,
  type ListJobsResponse,
} from '../gen/darkroom/v1/job_service.js';
import {
  type GetServerStatusResponse,
  type ListModelsResponse,
  type LoadModelResponse,
  ModelServiceClient,
} from '../gen/darkroom/v1/model_service.js';
import { errorFromStatus, isDetailed } from '../rpc/status.js';
import { watchFiles } from '../std/watch-files.js';
import { clientCredentials, type TlsOptions } from './credentials.js';

/** No server answered a call, or the answer broke off. */
export class UnreachableError extends InferenceError {
  /** False: no connection took the call, so no server has begun with it. */
  readonly wasSent: boolean;

  constructor(message: string, { cause, wasSent }: { readonly cause?: unknown; readonly wasSent: boolean }) {
    super('UNREACHABLE', message, { cause });
    this.wasSent = wasSent;
  }
}

/** The three services of one server. */
export interface DarkroomClient {
  readonly inference: InferenceServiceClient;
  readonly jobs: JobServiceClient;
  readonly models: ModelServiceClient;
  /** Metadata of every call. */
  readonly metadata: Metadata;
  close(): void;
}

export interface ConnectOptions {
  /** Bearer token; omitted: none. */
  readonly token?: string | undefined;
  /** File with the token, which is read again when it changes. */
  readonly tokenFile?: string | undefined;
  /** Omitted: the connection is not encrypted. */
  readonly tls?: TlsOptions | undefined;
}

/**
 * @param address host:port
 * @throws InferenceError INVALID_REQUEST for files that cannot be used
 */
export function connect(address: string, { token, tokenFile, tls }: ConnectOptions = {}): DarkroomClient {
  const open = clientCredentials(tls);
  const options: ClientOptions = {
    'grpc.keepalive_time_ms': 40_000,
    // gRPC's own bound is two minutes: a server that restarted would be away for as long.
    'grpc.max_reconnect_backoff_ms': 5000,
    ...(tls?.serverName !== undefined && {
      'grpc.ssl_target_name_override': tls.serverName,
      'grpc.default_authority': tls.serverName,
    }),
  };
  const inference = new InferenceServiceClient(address, open.channel, options);
  const jobs = new JobServiceClient(address, open.channel, options);
  const models = new ModelServiceClient(address, open.channel, options);
  const metadata = new MetadataClass();
  const useToken = (value: string) => metadata.set('authorization', `Bearer ${value}`);
  if (token !== undefined) useToken(token);
  let stopWatch = () => {};
  if (tokenFile !== undefined) {
    useToken(readToken(tokenFile));
    stopWatch = watchFiles([tokenFile], () => {
      try {
        useToken(readToken(tokenFile));
      } catch {
        // A file that is being replaced: the next look finds it.
      }
    });
  }
  return {
    inference,
    jobs,
    models,
    metadata,
    close() {
      for (const client of [inference, jobs, models]) client.close();
      open.close();
      stopWatch();
    },
  };
}

/** The same connection with another token. @param token omitted: calls carry none */
export function withToken(client: DarkroomClient, token: string | undefined): DarkroomClient {
  const metadata = client.metadata.clone();
  if (token === undefined) metadata.remove('authorization');
  else metadata.set('authorization', `Bearer ${token}`);
  return { ...client, metadata };
}

function readToken(path: string): string {
  try {
    const token = readFileSync(path, 'utf8').trim();
    if (token !== '') return token;
  } catch (error) {
    throw new InferenceError(
      'INVALID_REQUEST',
      `DARKROOM_TOKEN_FILE "${path}" cannot be read: ${(error as Error).message}`,
    );
  }
  throw new InferenceError('INVALID_REQUEST', `DARKROOM_TOKEN_FILE "${path}" is empty`);
}

/**
 * Runs a job and yields its events.
 * @param traceparent span that the call belongs to: https://www.w3.org/TR/trace-context. Omitted: none
 * @throws InferenceError that the server sent; UnreachableError if it does not answer
 */
export async function* generate(
  client: DarkroomClient,
  request: Partial<GenerateRequest>,
  signal?: AbortSignal,
  traceparent?: string,
): AsyncGenerator<JobEvent, void, undefined> {
  const metadata = client.metadata.clone();
  if (traceparent !== undefined) metadata.set('traceparent', traceparent);
  const stream = client.inference.generate(GenerateRequest.fromPartial(request), metadata);
  for await (const { event } of responsesOf(client, stream, signal)) if (event !== undefined) yield event;
}

/**
 * Enhances a prompt and yields the events. The last one has the whole text.
 * @throws InferenceError that the server sent; UnreachableError if it does not answer
 */
export function enhance(
  client: DarkroomClient,
  request: Partial<EnhanceRequest>,
  signal?: AbortSignal,
): AsyncGenerator<EnhanceResponse, void, undefined> {
  return responsesOf(client, client.inference.enhance(EnhanceRequest.fromPartial(request), client.metadata), signal);
}

async function* responsesOf<Response>(
  client: DarkroomClient,
  stream: ClientReadableStream<Response>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Response, void, undefined> {
  const cancel = () => stream.cancel();
  if (signal?.aborted) cancel();
  else signal?.addEventListener('abort', cancel, { once: true });
  const connection = watchConnection(client.inference.getChannel());
  try {
    for await (const response of stream as AsyncIterable<Response>) yield response;
  } catch (error) {
    throw callError(client, error, {
      isCancelled: signal?.aborted ?? false,
      wasSent: connection.wasReady,
    });
  } finally {
    connection.stop();
    signal?.removeEventListener('abort', cancel);
    stream.cancel();
  }
}

/** Estimates the cost of a Generate call. @throws InferenceError that the server sent */
export function estimate(client: DarkroomClient, request: Partial<GenerateRequest>): Promise<EstimateResponse> {
  const message = { request: GenerateRequest.fromPartial(request) };
  return answerOf(client, (done) => client.inference.estimate(message, client.metadata, done));
}

/** Splits a text into tokens. @throws InferenceError that the server sent */
export function tokenize(client: DarkroomClient, request: Partial<TokenizeRequest>): Promise<TokenizeResponse> {
  const message = TokenizeRequest.fromPartial(request);
  return answerOf(client, (done) => client.inference.tokenize(message, client.metadata, done));
}

/** The state of a server and its models. @throws InferenceError that the server sent; UnreachableError if it does not answer in time */
export function serverStatus(client: DarkroomClient, timeoutMs: number): Promise<GetServerStatusResponse> {
  return answerOf(client, (done) => client.models.getServerStatus({}, client.metadata, within(timeoutMs), done));
}

/** Cancels a job. @throws InferenceError that the server sent; UnreachableError if it does not answer in time */
export async function cancelJob(client: DarkroomClient, jobId: string, timeoutMs: number): Promise<void> {
  await answerOf<CancelJobResponse>(client, (done) =>
    client.jobs.cancelJob({ jobId }, client.metadata, within(timeoutMs), done),
  );
}

/**
 * Yields the events of a job after a sequence number, past ones first, until the job ends.
 * @throws InferenceError that the server sent, also the job's own; UnreachableError if it does not answer
 */
export async function* watchJob(
  client: DarkroomClient,
  jobId: string,
  afterSequence: bigint,
  signal?: AbortSignal,
): AsyncGenerator<JobEvent, void, undefined> {
  const stream = client.jobs.watchJob({ jobId, afterSequence }, client.metadata);
  for await (const { event } of responsesOf(client, stream, signal)) if (event !== undefined) yield event;
}

/** The state of a job. @throws InferenceError that the server sent; UnreachableError if it does not answer in time */
export async function getJob(client: DarkroomClient, jobId: string, timeoutMs: number): Promise<Job | undefined> {
  const { job } = await answerOf<GetJobResponse>(client, (done) =>
    client.jobs.getJob({ jobId }, client.metadata, within(timeoutMs), done),
  );
  return job;
}

/** A page of jobs. @throws InferenceError that the server sent; UnreachableError if it does not answer in time */
export function listJobs(
  client: DarkroomClient,
  request: Partial<ListJobsRequest>,
  timeoutMs: number,
): Promise<ListJobsResponse> {
  const message = ListJobsRequest.fromPartial(request);
  return answerOf(client, (done) => client.jobs.listJobs(message, client.metadata, within(timeoutMs), done));
}

/** The models with their LoRAs. @throws InferenceError that the server sent; UnreachableError if it does not answer in time */
export function listModels(client: DarkroomClient, timeoutMs: number): Promise<ListModelsResponse> {
  return answerOf(client, (done) => client.models.listModels({}, client.metadata, within(timeoutMs), done));
}

/** Loads a model of the family qwen. @throws InferenceError that the server sent; UnreachableError if it does not answer in time */
export async function loadModel(client: DarkroomClient, name: string, timeoutMs: number): Promise<void> {
  await answerOf<LoadModelResponse>(client, (done) =>
    client.models.loadModel({ name }, client.metadata, within(timeoutMs), done),
  );
}

function answerOf<Response>(
  client: DarkroomClient,
  call: (done: (error: ServiceError | null, response: Response) => void) => void,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    call((error, response) => (error === null ? resolve(response) : reject(callError(client, error))));
  });
}

interface ConnectionWatch {
  /** True if there was a connection at any time since the watch began. */
  readonly wasReady: boolean;
  stop(): void;
}

/** Watches a channel: a call that never had a connection was not sent, whatever gRPC says of its end. */
function watchConnection(channel: ChannelInterface): ConnectionWatch {
  const watch = { wasReady: false, isOver: false };
  const look = () => {
    if (watch.isOver) return;
    const state = channel.getConnectivityState(false);
    watch.wasReady = state === connectivityState.READY;
    if (watch.wasReady || state === connectivityState.SHUTDOWN) return;
    channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, look);
  };
  look();
  return {
    get wasReady() {
      return watch.wasReady;
    },
    stop() {
      watch.isOver = true;
    },
  };
}

/** Statuses with which gRPC itself ends a call whose connection breaks, or another service answers. The server's own errors carry a reason. */
const BROKEN: readonly status[] = [
  status.UNAVAILABLE,
  status.INTERNAL,
  status.UNKNOWN,
  status.CANCELLED,
  // Something else has taken the port of a server that is gone.
  status.UNIMPLEMENTED,
];
/** How grpc-js words an HTTP/2 connection that was told to calm down, as RESOURCE_EXHAUSTED. */
const OVERLOADED = /^Bandwidth exhausted/;

/** The server's own error; an UnreachableError if no server answered or the answer broke off. */
function callError(
  client: DarkroomClient,
  error: unknown,
  { isCancelled = false, wasSent = true }: { readonly isCancelled?: boolean; readonly wasSent?: boolean } = {},
): unknown {
  if (!isServiceError(error)) return error;
  const isUnanswered = BROKEN.includes(error.code) || OVERLOADED.test(error.details);
  if (isCancelled || !isUnanswered || isDetailed(error)) return errorFromStatus(error);
  const address = client.inference.getChannel().getTarget().replace(/^dns:/, '');
  const wasTaken =
    wasSent && error.code !== status.UNIMPLEMENTED && !UNSEEN.some((text) => error.details.startsWith(text));
  const problem = `no server answers at ${address}: ${explain(error.details)}`;
  return new UnreachableError(problem, { cause: error, wasSent: wasTaken });
}

const NO_CONNECTION = 'No connection established';
/**
 * How grpc-js ends a call that no server has begun with, although there was a connection: it refused the call because its server
 * closes, and so did the next one, or there was none.
 * https://www.rfc-editor.org/rfc/rfc9113#section-8.7
 */
const UNSEEN: readonly string[] = [NO_CONNECTION, 'Stream refused by server'];

/** What is probably wrong, for texts of gRPC and OpenSSL that do not say it. */
const HINTS: readonly (readonly [RegExp, string])[] = [
  [/ECONNREFUSED/, 'start one with darkroom serve, or set DARKROOM_SERVER to where it listens'],
  [
    /Failed to connect/,
    'the connection opens and closes at once; if the server speaks TLS, set DARKROOM_CA or DARKROOM_TLS=true',
  ],
  [
    /wrong version number|packet length too long|EPROTO/i,
    'the server does not speak TLS: unset DARKROOM_TLS, DARKROOM_CA and DARKROOM_CERT',
  ],
  [
    /unimplemented|unknown service|not implement|status code 404|protocol error/i,
    'something else listens there, or another version; set DARKROOM_SERVER to where a darkroom server listens',
  ],
  [
    /certificate required|bad certificate/i,
    'the server wants a client certificate: set DARKROOM_CERT and DARKROOM_KEY',
  ],
];

/** An error of OpenSSL: its thread, its number, and where in its source it was found stand around what it says. */
const OPENSSL = /(?:Error: )?[0-9A-F]+:error:[0-9A-F]+:[^:]*:[^:]*:([^:]*):.*$/s;

function explain(details: string): string {
  const text = details
    .replace(OPENSSL, 'TLS: $1')
    .replace(`${NO_CONNECTION}. Last error: `, '')
    .replace(/ \([\d-]+T[\d:.]+Z\).*$/s, '')
    .replace(/\.? Resolution note: *$/, '');
  const [, hint] = HINTS.find(([pattern]) => pattern.test(text)) ?? [];
  return hint === undefined ? text : `${text}; ${hint}`;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error;
}

function within(timeoutMs: number): { readonly deadline: number } {
  return { deadline: Date.now() + timeoutMs };
}
