import type { LookupAddress } from 'node:dns';
import { lookup as systemLookup } from 'node:dns/promises';
import { InferenceError } from '../errors.js';
import { parseAllowedHost } from './allowed-hosts.js';
import { checkUrl, type UrlRules } from './check-url.js';
import { httpsGet } from './https-get.js';
import { isPublicAddress } from './public-address.js';
import { type ReferenceResponse, readResponse } from './read-response.js';
import { connectionError, referenceUnavailable, rejectReference } from './reference-error.js';
import { type ResolveRules, resolveHost } from './resolve-host.js';

/** Enough for a store that redirects to its region and then to its bucket. */
const MAX_REDIRECTS = 3;

export interface ReferenceFetcherOptions {
  /** "storage.example.com", "*.example.com", either with ":port". Empty: nothing is fetched. */
  readonly allowedHosts: readonly string[];
  readonly maxBytes: number;
  /** Time limit from the call to the last byte, redirects included. */
  readonly timeoutMs: number;
  /** Omitted: 3. */
  readonly maxRedirects?: number;
  /** Resolves a name to all its addresses. Omitted: the system's resolver. */
  readonly lookup?: (hostname: string) => Promise<readonly LookupAddress[]>;
  /** Certificate authority in PEM, for tests. Omitted: the ones that node trusts. */
  readonly ca?: string;
  /** For tests, whose servers are on 127.0.0.1. Omitted: public addresses only. */
  readonly isAllowedAddress?: (address: string) => boolean;
}

export interface ReferenceFetcher {
  /**
   * Fetches the bytes of an https URL that a caller gave. They are not checked.
   *
   * @param accept media types that the host is asked for. Omitted: those of images
   * @throws InferenceError REFERENCE_INVALID for a URL or a response that is rejected, REFERENCE_UNAVAILABLE for a failure after
   *   which a retry may succeed; the signal's reason once it is aborted
   */
  fetch(url: string, signal: AbortSignal, accept?: string): Promise<Uint8Array>;
}

const IMAGES = 'image/png, image/jpeg, image/webp';

interface Rules extends UrlRules, ResolveRules {
  readonly accept: string;
  readonly maxBytes: number;
  readonly maxRedirects: number;
  readonly ca: string | undefined;
}

/**
 * Creates a fetcher for references: https only, from allowed hosts at public addresses, checked again at every redirect. A name is
 * resolved once and the connection goes to an address that was checked, so the name cannot resolve to another address in between.
 *
 * @throws InferenceError INVALID_REQUEST for an invalid entry of `allowedHosts`
 */
export function createReferenceFetcher(options: ReferenceFetcherOptions): ReferenceFetcher {
  const { timeoutMs, maxBytes } = options;
  const rules: Omit<Rules, 'signal' | 'accept'> = {
    allowedHosts: options.allowedHosts.map(readAllowedHost),
    maxBytes,
    maxRedirects: options.maxRedirects ?? MAX_REDIRECTS,
    lookup: options.lookup ?? ((hostname) => systemLookup(hostname, { all: true })),
    isAllowedAddress: options.isAllowedAddress ?? isPublicAddress,
    ca: options.ca,
  };
  return {
    async fetch(url, signal, accept = IMAGES) {
      signal.throwIfAborted();
      const abort = new AbortController();
      const forward = () => abort.abort(signal.reason);
      signal.addEventListener('abort', forward, { once: true });
      const late = (file: string) =>
        `${file} did not arrive within ${timeoutMs} ms; try again later or raise REFERENCE_TIMEOUT_MS`;
      const timer = setTimeout(() => abort.abort(referenceUnavailable(late)), timeoutMs);
      try {
        // Whatever the other side does, the deadline and the caller's signal end the wait.
        return await Promise.race([
          fetchReference(url, { ...rules, accept, signal: abort.signal }),
          rejectedBy(abort.signal),
        ]);
      } catch (error) {
        // After an abort the error may be that of the broken connection.
        throw abort.signal.aborted ? abort.signal.reason : error;
      } finally {
        clearTimeout(timer);
        signal.removeEventListener('abort', forward);
      }
    },
  };
}

/** Rejects with the signal's reason once it is aborted. */
function rejectedBy(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

async function fetchReference(given: string, rules: Rules): Promise<Uint8Array> {
  let url = checkUrl(given, rules);
  for (let redirects = 0; redirects <= rules.maxRedirects; redirects++) {
    const answer = await askFor(url, rules);
    if (answer.kind === 'body') return answer.bytes;
    url = checkUrl(answer.location, rules, url);
  }
  return rejectReference(
    (file) => `${file} redirects more than ${rules.maxRedirects} times; give the URL that it ends at`,
  );
}

async function askFor(url: URL, rules: Rules): Promise<ReferenceResponse> {
  const addresses = await resolveHost(url.hostname, rules);
  try {
    const response = await httpsGet(url, { addresses, accept: rules.accept, ca: rules.ca, signal: rules.signal });
    try {
      return await readResponse(response, url.host, rules.maxBytes);
    } finally {
      response.destroy();
    }
  } catch (error) {
    throw connectionError(error, url.host);
  }
}

function readAllowedHost(entry: string) {
  const host = parseAllowedHost(entry);
  if (host !== undefined) return host;
  throw new InferenceError(
    'INVALID_REQUEST',
    `REFERENCE_HOSTS has "${entry}", which is not a host name; give names like storage.example.com or *.example.com`,
  );
}
