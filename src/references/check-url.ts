import { isIP } from 'node:net';
import { type AllowedHost, isAllowedHost } from './allowed-hosts.js';
import { rejectReference } from './reference-error.js';

/** Signed URLs of object stores stay below 4,000. */
const MAX_URL_CHARACTERS = 8192;

export interface UrlRules {
  readonly allowedHosts: readonly AllowedHost[];
  readonly isAllowedAddress: (address: string) => boolean;
}

/**
 * Reads a URL and checks everything that can be checked without the network.
 *
 * @param base the URL that redirected here. Omitted: the caller gave the URL
 * @throws InferenceError REFERENCE_INVALID. The message names the host, but never the path or the query, which may hold signatures.
 */
export function checkUrl(given: string, { allowedHosts, isAllowedAddress }: UrlRules, base?: URL): URL {
  const reject = (sentence: (whose: string) => string): never =>
    rejectReference((file) => sentence(base === undefined ? file : `${file}'s redirect`));
  if (given.length > MAX_URL_CHARACTERS) {
    reject(
      (whose) =>
        `the URL of ${whose} has ${given.length} characters, and the limit is ${MAX_URL_CHARACTERS}; give a shorter one`,
    );
  }
  if (!URL.canParse(given, base?.href))
    reject((whose) => `the URL of ${whose} is not valid; give one that begins with https://`);
  const url = new URL(given, base);
  if (url.protocol !== 'https:') {
    reject(
      (whose) => `the URL of ${whose} begins with "${url.protocol}", and only https is fetched; give an https URL`,
    );
  }
  if (url.username !== '' || url.password !== '') {
    reject((whose) => `the URL of ${whose} contains a user name or a password; give one without`);
  }
  // WHATWG URLs normalise every address, decimal, octal and hexadecimal ones too.
  const address = url.hostname.replace(/^\[|\]$/g, '');
  if (isIP(address) !== 0 && !isAllowedAddress(address)) {
    reject((whose) => `the host of ${whose}, ${address}, is not a public address; use another host`);
  }
  if (allowedHosts.length === 0) {
    rejectReference(
      () =>
        'this server fetches no references; send the bytes, or ask its operator to set REFERENCE_HOSTS, for example to *.supabase.co',
    );
  }
  if (!isAllowedHost(url, allowedHosts)) {
    reject(
      (whose) => `the host of ${whose}, "${url.host}", is not allowed; add it to REFERENCE_HOSTS or use another host`,
    );
  }
  return url;
}
