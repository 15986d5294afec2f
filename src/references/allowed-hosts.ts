import { isIP } from 'node:net';

/** One entry of REFERENCE_HOSTS. */
export interface AllowedHost {
  /** Host name in the spelling of URLs: lower case, letters of other scripts in punycode. */
  readonly name: string;
  /** True if the entry stands for the names under `name`, at any depth, but not for `name` itself. */
  readonly wildcard: boolean;
  /** Port in the spelling of URLs: empty for 443. */
  readonly port: string;
}

/**
 * Reads "storage.example.com", "*.example.com" or either with a port.
 * @returns undefined for anything else: an address, a URL, or a wildcard over a whole top-level domain
 */
export function parseAllowedHost(entry: string): AllowedHost | undefined {
  const [, star, host] = /^(\*\.)?([^\s*/\\?#@]+)$/.exec(entry) ?? [];
  if (host === undefined || !URL.canParse(`https://${host}`)) return undefined;
  const { hostname, port } = new URL(`https://${host}`);
  const wildcard = star !== undefined;
  if (isIP(hostname) !== 0 || hostname.startsWith('[') || (wildcard && !hostname.includes('.'))) return undefined;
  return { name: hostname, wildcard, port };
}

export function isAllowedHost({ hostname, port }: URL, allowed: readonly AllowedHost[]): boolean {
  return allowed.some(
    (host) => host.port === port && (host.wildcard ? hostname.endsWith(`.${host.name}`) : hostname === host.name),
  );
}
