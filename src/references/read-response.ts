import type { IncomingMessage } from 'node:http';
import { readBody } from './read-body.js';
import { referenceUnavailable, rejectReference } from './reference-error.js';

export type ReferenceResponse =
  | { readonly kind: 'redirect'; readonly location: string }
  | { readonly kind: 'body'; readonly bytes: Uint8Array };

const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];
/** Timeout, too early, too many requests: the caller's URL may be right. */
const TEMPORARY: readonly number[] = [408, 425, 429];

/**
 * Reads a response: the target of a redirect, or the body.
 * @throws InferenceError, or the error of the connection
 */
export async function readResponse(
  response: IncomingMessage,
  host: string,
  maxBytes: number,
): Promise<ReferenceResponse> {
  const { statusCode: status = 0, headers } = response;
  if (REDIRECTS.includes(status)) {
    const { location } = headers;
    return location === undefined
      ? rejectReference((file) => `"${host}" redirects ${file} without a target; give the URL of the file itself`)
      : { kind: 'redirect', location };
  }
  if (status >= 500 || TEMPORARY.includes(status)) {
    throw referenceUnavailable((file) => `"${host}" answered ${status} for ${file}; try again later`);
  }
  if (status !== 200) rejectReference((file) => `"${host}" answered ${status} for ${file}; check its URL`);

  // A compressed body could have any size once it is unpacked.
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') {
    rejectReference(
      (file) => `"${host}" sends ${file} as "${encoding}", but only plain bytes are accepted; store it uncompressed`,
    );
  }
  const declaredBytes = headers['content-length'] === undefined ? undefined : Number(headers['content-length']);
  if (declaredBytes !== undefined && declaredBytes > maxBytes) {
    rejectReference((file) => `${file} has ${declaredBytes} bytes, and the limit is ${maxBytes}; use a smaller file`);
  }
  const bytes = await readBody(response, { maxBytes, declaredBytes });
  return bytes === undefined
    ? rejectReference((file) => `${file} has more than ${maxBytes} bytes, which is the limit; use a smaller file`)
    : { kind: 'body', bytes };
}
