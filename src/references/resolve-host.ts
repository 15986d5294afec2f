import type { LookupAddress } from 'node:dns';
import { isIP } from 'node:net';
import { connectionError, rejectReference } from './reference-error.js';

export interface ResolveRules {
  readonly lookup: (hostname: string) => Promise<readonly LookupAddress[]>;
  readonly isAllowedAddress: (address: string) => boolean;
  readonly signal: AbortSignal;
}

/**
 * Resolves a name to all its addresses. If one is not allowed, all are rejected, because a connection may use any of them.
 * @throws InferenceError. Its message has no address, because callers must not learn what is behind a name
 */
export async function resolveHost(
  hostname: string,
  { lookup, isAllowedAddress, signal }: ResolveRules,
): Promise<readonly LookupAddress[]> {
  const found = await Promise.race([lookup(hostname), rejectionOf(signal)]).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOTFOUND') return [];
    throw connectionError(error, hostname);
  });
  if (found.length === 0)
    return rejectReference((file) => `the host of ${file}, "${hostname}", is not found; check its URL`);
  if (!found.every(({ address }) => isAllowedAddress(address))) {
    return rejectReference(
      (file) => `the host of ${file}, "${hostname}", has an address that is not public; use another host`,
    );
  }
  return found.map(({ address }) => ({ address, family: isIP(address) }));
}

// A resolver cannot be stopped, so an abort leaves it running.
function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
