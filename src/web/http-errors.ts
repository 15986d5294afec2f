import { InferenceError, type StatusName } from '../errors.js';

const HTTP_STATUS: Readonly<Record<StatusName, number>> = {
  // nginx's code for a client that closed its request.
  CANCELLED: 499,
  INVALID_ARGUMENT: 400,
  DEADLINE_EXCEEDED: 504,
  NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  PERMISSION_DENIED: 403,
  RESOURCE_EXHAUSTED: 429,
  FAILED_PRECONDITION: 400,
  INTERNAL: 500,
  UNAVAILABLE: 503,
  UNAUTHENTICATED: 401,
};

/** The HTTP status of an error. A request that can never succeed is not 429, which clients repeat. */
export function httpStatus(error: InferenceError): number {
  if (error.reason === 'REQUEST_TOO_LARGE') return 413;
  if (error.reason === 'OUT_OF_MEMORY') return 507;
  return HTTP_STATUS[error.status];
}

/** Headers that an error adds to its answer. */
export function errorHeaders(error: InferenceError): Readonly<Record<string, string>> {
  return {
    ...(error.retryAfterMs !== undefined && { 'retry-after': String(Math.ceil(error.retryAfterMs / 1000)) }),
    ...(error.reason === 'UNAUTHENTICATED' && { 'www-authenticate': 'Bearer' }),
  };
}

/** Turns anything caught, also Fastify's own errors of a request, into an InferenceError. */
export function requestError(caught: unknown): InferenceError {
  const { statusCode, code, message } = caught as { statusCode?: number; code?: string; message?: string };
  if (caught instanceof InferenceError || statusCode === undefined || statusCode >= 500)
    return InferenceError.from(caught);
  if (statusCode === 413 || code === 'FST_REQ_FILE_TOO_LARGE') {
    return new InferenceError('REQUEST_TOO_LARGE', `the request is larger than this address reads: ${message}`);
  }
  return new InferenceError('INVALID_REQUEST', `the request cannot be read: ${message}`);
}
