import { constants, type ServerHttp2Stream } from 'node:http2';
import {
  type Metadata,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import type { Config } from '../../config/server-config.js';
import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';
import { statusFromError } from '../../rpc/status.js';
import { withoutPort } from '../../std/address.js';
import { wellFormed } from '../../std/well-formed.js';
import type { Access } from '../access/access.js';
import { type Caller, nobody, rememberCaller } from '../access/caller.js';
import { scopeProblem } from '../access/method-scopes.js';
import type { ServerObserver } from '../observe/server-observer.js';
import { ArrivingMessages, PREFIX_BYTES } from './arriving-messages.js';
import { inflate, isEncoding } from './inflate.js';
import type { MessageShape } from './message-shapes.js';
import { ReceiveBudget } from './receive-budget.js';
import { type RequestBounds, requestBounds } from './request-bounds.js';

const MAX_STATUS_CHARACTERS = 1500;
/** Bytes of unfinished requests that the process may hold: 4 large ones, and small ones. */
const MAX_RECEIVING_BYTES = 192 * 1024 * 1024;
const LARGE_BYTES = 256 * 1024;
const MAX_LARGE = 4;
const RECEIVE_TIMEOUT_MS = 60_000;
const HEALTH = '/grpc.health.';
const REFLECTION = '/grpc.reflection.';

export interface CallGuardOptions {
  readonly config: Pick<Config, 'LIMIT_PROMPT_BYTES' | 'HEALTH' | 'REFLECTION'>;
  readonly log: Logger;
  readonly access: Pick<Access, 'tokens' | 'audit'>;
  readonly observer: Pick<ServerObserver, 'callRefused'>;
  /** Request types of the methods, by path. */
  readonly shapes: ReadonlyMap<string, MessageShape>;
}

/**
 * Guards every call of a server: the token is checked before the body is read, the body is bounded while it arrives, and the
 * text of every status is one that can be sent. grpc-js throws out of the process where a status has half a surrogate pair.
 */
export function createCallGuard({
  config,
  log,
  access: { tokens, audit },
  observer,
  shapes,
}: CallGuardOptions): ServerInterceptor {
  const budget = new ReceiveBudget({
    maxBytes: MAX_RECEIVING_BYTES,
    largeBytes: LARGE_BYTES,
    maxLarge: MAX_LARGE,
    timeoutMs: RECEIVE_TIMEOUT_MS,
  });
  /** Load balancers and grpcurl ask the open services without a token. */
  const isOpen = (path: string) =>
    (path.startsWith(HEALTH) && config.HEALTH === 'open') ||
    (path.startsWith(REFLECTION) && config.REFLECTION === 'open');
  const admit = (path: string, metadata: Metadata): Caller | InferenceError => {
    if (isOpen(path)) return nobody;
    const caller = tokens.authenticate(metadata.get('authorization')[0]?.toString());
    if (caller instanceof InferenceError) return caller;
    return scopeProblem(path, caller) ?? caller;
  };
  const record = (path: string, peer: string, { reason, info }: InferenceError) =>
    audit?.record({ kind: 'access', token: info.token, peer: withoutPort(peer), method: path, reason });
  return (method, call) => {
    const refuse = (error: InferenceError) => {
      observer.callRefused(method.path, error.reason);
      guarded.sendStatus(statusFromError(error, log));
      // Tells the client to stop sending, which is no error: https://www.rfc-editor.org/rfc/rfc9113#section-8.1
      streamOf(call).close(constants.NGHTTP2_NO_ERROR);
    };
    let receiving: ReturnType<ReceiveBudget['track']> | undefined;
    const guarded = new ServerInterceptingCall(call, {
      start(next) {
        next({
          onReceiveMetadata(metadata, proceed) {
            const admission = admit(method.path, metadata);
            if (admission instanceof InferenceError) {
              record(method.path, call.getPeer(), admission);
              return refuse(admission);
            }
            rememberCaller(metadata, admission);
            const bounds = requestBounds(method.path, shapes, config);
            inflateWithin(call, bounds, refuse);
            const messages = new ArrivingMessages(bounds);
            receiving = budget.track({ stream: streamOf(call), check: (chunk) => messages.write(chunk), refuse });
            proceed(metadata);
          },
          onReceiveMessage(message, proceed) {
            receiving?.received();
            proceed(message);
          },
          onReceiveHalfClose(proceed) {
            receiving?.end();
            proceed();
          },
          onCancel() {
            receiving?.end();
          },
        });
      },
      sendStatus(status, next) {
        receiving?.end();
        next({ ...status, details: wellFormed(status.details ?? '', MAX_STATUS_CHARACTERS) });
      },
    });
    return guarded;
  };
}

/**
 * Lets a call inflate its messages within bounds. grpc-js has no public access to that, nor to the stream; the version is pinned, and
 * tests would notice.
 */
function inflateWithin(
  call: ServerInterceptingCallInterface,
  bounds: RequestBounds,
  refuse: (error: InferenceError) => void,
): void {
  const plain = (Reflect.get(call, 'decompressMessage') as Decompress).bind(call);
  const decompress: Decompress = async (message, encoding) => {
    if (!isEncoding(encoding)) return plain(message, encoding);
    try {
      return await inflate(message.subarray(PREFIX_BYTES), encoding, bounds);
    } catch (error) {
      refuse(InferenceError.from(error));
      throw error;
    }
  };
  Reflect.set(call, 'decompressMessage', decompress);
}

type Decompress = (message: Buffer, encoding: string) => Buffer | Promise<Buffer>;

/** The HTTP/2 stream of a call. */
function streamOf(call: ServerInterceptingCallInterface): ServerHttp2Stream {
  return Reflect.get(call, 'stream') as ServerHttp2Stream;
}
