import type { FastifyRequest } from 'fastify';
import { InferenceError } from '../errors.js';
import { isLoopback, withoutPort } from '../std/address.js';

/** Headers of every answer. The page loads nothing from elsewhere, and nothing frames it. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

/**
 * Refuses what another site could send through a visitor's browser. On loopback the Host header must be loopback, too: otherwise a
 * site could point its own name at 127.0.0.1 (DNS rebinding). Elsewhere a token protects the calls.
 * @throws InferenceError PERMISSION_DENIED
 */
export function assertSameSite({ headers }: Pick<FastifyRequest, 'headers'>, listensOnLoopback: boolean): void {
  const host = headers.host ?? '';
  const name = withoutPort(host);
  if (listensOnLoopback && !isLoopback(name)) {
    throw new InferenceError(
      'PERMISSION_DENIED',
      `Host "${name}" is not this machine; use 127.0.0.1 or localhost, or set WEB_LISTEN for other machines`,
    );
  }
  const { origin } = headers;
  if (origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== host)) {
    throw new InferenceError('PERMISSION_DENIED', `Origin "${origin}" is another site; only the page itself may call`);
  }
  const site = headers['sec-fetch-site'];
  if ((site === 'cross-site' || site === 'same-site') && headers['sec-fetch-mode'] !== 'navigate') {
    throw new InferenceError('PERMISSION_DENIED', 'the call comes from another site; only the page itself may call');
  }
}
