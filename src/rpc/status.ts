import { randomUUID } from 'node:crypto';
import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import { InferenceError, statusCodes } from '../errors.js';
import { BadRequest, ErrorInfo, RetryInfo } from '../gen/google/rpc/error_details.js';
import { Status } from '../gen/google/rpc/status.js';
import type { Logger } from '../log.js';

const DETAILS = 'grpc-status-details-bin';
const DOMAIN = 'darkroom';
/** Trailers are headers, and many clients accept no more than 8 KB of them. */
const MAX_MESSAGE_CHARACTERS = 1500;
const MAX_VIOLATIONS = 20;

/**
 * The gRPC status of anything caught: code, message and google.rpc details. An error that is not an InferenceError is logged
 * completely and sent as INTERNAL with an id, by which the log entry is found.
 */
export function statusFromError(caught: unknown, log: Logger): StatusObject {
  const error = hideInternals(InferenceError.from(caught), log);
  const message = error.message.slice(0, MAX_MESSAGE_CHARACTERS);
  const code = statusCodes[error.status];
  const any = (type: string, value: Uint8Array) => ({
    typeUrl: `type.googleapis.com/google.rpc.${type}`,
    value: Buffer.from(value),
  });
  const details = [
    any('ErrorInfo', ErrorInfo.encode({ reason: error.reason, domain: DOMAIN, metadata: error.info }).finish()),
  ];
  if (error.violations.length > 0) {
    const fieldViolations = error.violations
      .slice(0, MAX_VIOLATIONS)
      .map(({ field, description }) => ({ field, description }));
    details.push(any('BadRequest', BadRequest.encode({ fieldViolations }).finish()));
  }
  if (error.retryAfterMs !== undefined) {
    const seconds = Math.floor(error.retryAfterMs / 1000);
    const retryDelay = { seconds: BigInt(seconds), nanos: Math.round((error.retryAfterMs - seconds * 1000) * 1e6) };
    details.push(any('RetryInfo', RetryInfo.encode({ retryDelay }).finish()));
  }
  const metadata = new Metadata();
  metadata.set(DETAILS, Buffer.from(Status.encode({ code, message, details }).finish()));
  return { code, details: message, metadata };
}

/** The InferenceError that a server sent, read from the error of a call. */
export function errorFromStatus(error: ServiceError): InferenceError {
  const [bytes] = error.metadata?.get(DETAILS) ?? [];
  const found: {
    reason?: string;
    retryAfterMs?: number;
    violations?: { field: string; description: string }[];
    info?: Record<string, string>;
  } = {};
  if (bytes instanceof Buffer) {
    for (const { typeUrl, value } of Status.decode(bytes).details) {
      if (typeUrl.endsWith('.ErrorInfo')) {
        const { reason, metadata } = ErrorInfo.decode(value);
        found.reason = reason;
        found.info = metadata;
      }
      if (typeUrl.endsWith('.BadRequest')) found.violations = BadRequest.decode(value).fieldViolations;
      if (typeUrl.endsWith('.RetryInfo')) {
        const delay = RetryInfo.decode(value).retryDelay;
        found.retryAfterMs = Number(delay?.seconds ?? 0) * 1000 + (delay?.nanos ?? 0) / 1e6;
      }
    }
  }
  const reason = (found.reason ?? REASON_OF_CODE[error.code] ?? 'INTERNAL') as InferenceError['reason'];
  return new InferenceError(reason, error.details, { cause: error, ...found });
}

/** True if darkroom sent the error. Errors of gRPC itself have no details. */
export function isDetailed(error: ServiceError): boolean {
  return (error.metadata?.get(DETAILS).length ?? 0) > 0;
}

/** Reasons for errors of gRPC itself, which have no details. */
const REASON_OF_CODE: Partial<Record<status, InferenceError['reason']>> = {
  [status.CANCELLED]: 'CANCELLED',
  [status.DEADLINE_EXCEEDED]: 'DEADLINE_EXCEEDED',
  [status.UNAUTHENTICATED]: 'UNAUTHENTICATED',
  [status.PERMISSION_DENIED]: 'PERMISSION_DENIED',
};

const hidden = new WeakSet<InferenceError>();

/** Logs an INTERNAL error completely and replaces its message by an id. Other errors are returned as they are. */
export function hideInternals(error: InferenceError, log: Logger): InferenceError {
  if (error.reason !== 'INTERNAL' || hidden.has(error)) return error;
  const id = randomUUID();
  log.error({ err: error.cause ?? error, id }, 'internal error');
  const sent = new InferenceError(
    'INTERNAL',
    `Generation failed: internal error ${id}; the server's log has it under this id`,
  );
  hidden.add(sent);
  return sent;
}
