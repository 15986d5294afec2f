import { timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import type { handleServerStreamingCall, handleUnaryCall, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { statusFromError } from '../rpc/status.js';

/** A client's deadline passes earlier than ours by the latency of its call; then the client hangs up. */
const DEADLINE_SLACK_MS = 500;

export interface CallContext {
  /** Aborted with an InferenceError when the client is gone or its deadline has passed. */
  readonly signal: AbortSignal;
}

export interface CallOptions {
  readonly log: Logger;
  /** Bearer token that every call must carry; undefined: none. */
  readonly token: string | undefined;
}

/** Turns an async generator into a gRPC handler. A slow client slows the generator; an error becomes a status. */
export function streaming<Request, Response>(
  { log, token }: CallOptions,
  handle: (request: Request, context: CallContext) => AsyncIterable<Response>,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    const abort = abortWith(call);
    const run = async () => {
      assertToken(call, token);
      for await (const response of handle(call.request, { signal: abort.signal })) {
        if (abort.signal.aborted) return;
        if (!call.write(response)) await drained(call, abort.signal);
      }
      call.end();
    };
    run().catch((error: unknown) => {
      // Nobody reads the status of a closed call.
      if (!call.cancelled) call.emit('error', statusFromError(error, log));
    });
  };
}

export function unary<Request, Response>(
  { log, token }: CallOptions,
  handle: (request: Request) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, respond) => {
    const run = async () => {
      assertToken(call, token);
      return handle(call.request);
    };
    run().then(
      (response) => respond(null, response),
      (error: unknown) => respond(statusFromError(error, log)),
    );
  };
}

type AnyCall = ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>;

function abortWith(call: Pick<ServerWritableStream<unknown, unknown>, 'on' | 'getDeadline'>): AbortController {
  const abort = new AbortController();
  call.on('cancelled', () => {
    const isLate = Number(call.getDeadline()) - DEADLINE_SLACK_MS <= Date.now();
    abort.abort(
      isLate
        ? new InferenceError('DEADLINE_EXCEEDED', 'the deadline of the call has passed')
        : new InferenceError('CANCELLED', 'the client ended the call'),
    );
  });
  return abort;
}

async function drained(stream: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  await once(stream, 'drain', { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

function assertToken(call: Pick<AnyCall, 'metadata'>, token: string | undefined): void {
  if (token === undefined) return;
  const given = Buffer.from(String(call.metadata.get('authorization')[0] ?? ''));
  const wanted = Buffer.from(`Bearer ${token}`);
  if (given.length === wanted.length && timingSafeEqual(given, wanted)) return;
  throw new InferenceError(
    'UNAUTHENTICATED',
    'the call needs the metadata "authorization: Bearer <token>" with this server\'s token',
  );
}
