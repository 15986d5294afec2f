import {
  type ChannelInterface,
  type ClientOptions,
  type ClientReadableStream,
  connectivityState,
  credentials,
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
import { type CancelJobResponse, JobServiceClient } from '../gen/darkroom/v1/job_service.js';
import { type GetServerStatusResponse, ModelServiceClient } from '../gen/darkroom/v1/model_service.js';
import { errorFromStatus, isDetailed } from '../rpc/status.js';

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
  readonly token?: string;
}

/** @param address host:port */
export function connect(address: string, { token }: ConnectOptions = {}): DarkroomClient {
  const options: ClientOptions = { 'grpc.keepalive_time_ms': 40_000 };
  const open = credentials.createInsecure();
  const inference = new InferenceServiceClient(address, open, options);
  const jobs = new JobServiceClient(address, open, options);
  const models = new ModelServiceClient(address, open, options);
  const metadata = new MetadataClass();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return {
    inference,
    jobs,
    models,
    metadata,
    close() {
      for (const client of [inference, jobs, models]) client.close();
    },
  };
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
  const deadline = { deadline: Date.now() + timeoutMs };
  return answerOf(client, (done) => client.models.getServerStatus({}, client.metadata, deadline, done));
}

/** Cancels a job. @throws InferenceError that the server sent; UnreachableError if it does not answer in time */
export async function cancelJob(client: DarkroomClient, jobId: string, timeoutMs: number): Promise<void> {
  const deadline = { deadline: Date.now() + timeoutMs };
  await answerOf<CancelJobResponse>(client, (done) =>
    client.jobs.cancelJob({ jobId }, client.metadata, deadline, done),
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

/** Statuses with which gRPC itself ends a call whose connection breaks. The server's own errors carry a reason. */
const BROKEN: readonly status[] = [status.UNAVAILABLE, status.INTERNAL, status.UNKNOWN, status.CANCELLED];

/** The server's own error; an UnreachableError if no server answered or the answer broke off. */
function callError(
  client: DarkroomClient,
  error: unknown,
  { isCancelled = false, wasSent = true }: { readonly isCancelled?: boolean; readonly wasSent?: boolean } = {},
): unknown {
  if (!isServiceError(error)) return error;
  if (isCancelled || !BROKEN.includes(error.code) || isDetailed(error)) return errorFromStatus(error);
  const address = client.inference.getChannel().getTarget().replace(/^dns:/, '');
  return new UnreachableError(`no server answers at ${address}: ${error.details}`, { cause: error, wasSent });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error;
}
