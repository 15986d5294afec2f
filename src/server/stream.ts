import type { handleServerStreamingCall, handleUnaryCall, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { statusFromError } from '../rpc/status.js';
import { withoutPort } from '../std/address.js';
import { drained } from '../std/drained.js';
import { parseTraceparent } from '../std/traceparent.js';
import { type Caller, callerOf } from './access/caller.js';
import type { ServedCall, ServerObserver } from './observe/server-observer.js';
import { RefusedRequest } from './receive/decoded-service.js';

/** A client's deadline passes earlier than ours by the latency of its call; then the client hangs up. */
const DEADLINE_SLACK_MS = 500;

export interface CallContext {
  /** Aborted with an InferenceError when the client is gone or its deadline has passed. */
  readonly signal: AbortSignal;
  readonly caller: Caller;
  /** Address of the client. */
  readonly peer: string;
  readonly call: ServedCall;
}

export interface CallOptions {
  readonly log: Logger;
  readonly observer: ServerObserver;
}

/** Turns an async generator into a gRPC handler. A slow client slows the generator; an error becomes a status. */
export function streaming<Request, Response>(
  { log, observer }: CallOptions,
  handle: (request: Request, context: CallContext) => AsyncIterable<Response>,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    const abort = abortWith(call);
    const served = servedCall(call);
    let isRefused = true;
    const run = async () => {
      const context = { ...callerContext(call), signal: abort.signal, call: served };
      for await (const response of handle(accepted(call.request), context)) {
        isRefused = false;
        if (abort.signal.aborted) return;
        if (!call.write(response)) await drained(call, abort.signal);
      }
      call.end();
    };
    observer.callStarted(served);
    run().then(
      () => observer.callEnded(served, { error: abort.signal.reason, isRefused: false }),
      (error: unknown) => {
        observer.callEnded(served, { error: InferenceError.from(error), isRefused: isRefused && !call.cancelled });
        // Nobody reads the status of a closed call.
        if (!call.cancelled) call.emit('error', statusFromError(error, log));
      },
    );
  };
}

export function unary<Request, Response>(
  { log, observer }: CallOptions,
  handle: (request: Request, context: Omit<CallContext, 'call'>) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, respond) => {
    const { signal } = abortWith(call);
    const run = async () => handle(accepted(call.request), { ...callerContext(call), signal });
    const served = servedCall(call);
    observer.callStarted(served);
    run().then(
      (response) => {
        observer.callEnded(served, { isRefused: false });
        respond(null, response);
      },
      (error: unknown) => {
        observer.callEnded(served, { error: InferenceError.from(error), isRefused: !call.cancelled });
        respond(statusFromError(error, log));
      },
    );
  };
}

function servedCall(call: Pick<ServerWritableStream<unknown, unknown>, 'metadata' | 'getPath'>): ServedCall {
  const [traceparent] = call.metadata.get('traceparent');
  return { path: call.getPath(), traceparent: parseTraceparent(traceparent) && String(traceparent) };
}

function callerContext(
  call: Pick<ServerUnaryCall<unknown, unknown>, 'metadata' | 'getPeer'>,
): Omit<CallContext, 'signal' | 'call'> {
  return { caller: callerOf(call.metadata), peer: withoutPort(call.getPeer()) };
}

function abortWith(call: Pick<ServerUnaryCall<unknown, unknown>, 'on' | 'getDeadline'>): AbortController {
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

/** The request of a call. @throws InferenceError of a request that was refused before it was decoded */
function accepted<Request>(request: Request | RefusedRequest): Request {
  if (request instanceof RefusedRequest) throw request.error;
  return request;
}
