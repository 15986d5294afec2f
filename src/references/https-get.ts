import type { LookupAddress } from 'node:dns';
import type { IncomingMessage } from 'node:http';
import { Agent, get } from 'node:https';
import type { LookupFunction } from 'node:net';
import { version } from '../version.js';

export interface HttpsGetOptions {
  /** Addresses to connect to. The name is not resolved again. */
  readonly addresses: readonly LookupAddress[];
  /** Media types that are asked for. */
  readonly accept: string;
  /** Certificate authority in PEM that replaces the system's. Omitted: the system's. */
  readonly ca?: string | undefined;
  readonly signal: AbortSignal;
}

/**
 * Sends one GET over TLS. The certificate is checked against the URL's name, whatever the address. Redirects are not followed, and
 * only the path is sent: no cookie, no referrer, no credentials.
 */
export function httpsGet(url: URL, { addresses, accept, ca, signal }: HttpsGetOptions): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = get(url, {
      // A new agent: connections are not shared between checks, and no proxy of the environment is used.
      agent: new Agent({ keepAlive: false }),
      lookup: lookupOf(addresses),
      ca,
      // Explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 changes the default.
      rejectUnauthorized: true,
      signal,
      headers: {
        'user-agent': `darkroom/${version}`,
        accept,
        'accept-encoding': 'identity',
      },
    });
    request.on('response', resolve);
    // Node emits no response for 101: it hands over the connection.
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response);
    });
    request.on('close', () => reject(new Error('the connection was closed without an answer')));
    // Stays registered: a connection that breaks after the response emits another error.
    request.on('error', reject);
  });
}

function lookupOf(addresses: readonly LookupAddress[]): LookupFunction {
  return (_hostname, { all }, callback) => {
    const [first] = addresses;
    if (first === undefined) return callback(new Error('there is no address to connect to'), '');
    return all ? callback(null, [...addresses]) : callback(null, first.address, first.family);
  };
}
