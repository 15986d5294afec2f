import { timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import type { handleServerStreamingCall, handleUnaryCall, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { statusFromError } from '../rpc/status.js';

/** A client's own deadline passes earlier than ours by the time that its call took to get here; then it hangs up. */
const DEADLINE_SLACK_MS = 500;

export interface CallContext {
  /** Aborted when the client is gone or its deadline has passed, with the InferenceError that says which. */
  readonly signal: AbortSignal;
}

export interface CallOptions {
  readonly log: Logger;
  /** Bearer token that a call must carry; undefined: none. */
  readonly token: string | undefined;
}

/** Makes a gRPC handler of an async generator: a slow client slows the generator, an error becomes a status. */
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
      // Nobody reads the status of a call that is gone.
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
