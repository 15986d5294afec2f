import { readFileSync } from 'node:fs';
import type { IncomingHttpHeaders, RequestListener } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import { createReferenceFetcher, type ReferenceFetcher } from '../../src/references/reference-fetcher.js';

const pem = (name: string) => readFileSync(new URL(`../fixtures/tls/${name}.pem`, import.meta.url), 'utf8');

/** Certificate of every server here, and its own authority: for `localhost`, `references.test` and the names under it. */
export const certificate = pem('certificate');

export interface HttpsServer {
  readonly port: number;
  /** Requests, in order. */
  readonly requests: readonly { readonly url: string; readonly headers: IncomingHttpHeaders }[];
  /** Number of connections, whatever became of them. */
  connections(): number;
}

/** A real HTTPS server of the running test's own, on a free port of 127.0.0.1. */
export async function httpsServer(listener: RequestListener): Promise<HttpsServer> {
  const requests: { url: string; headers: IncomingHttpHeaders }[] = [];
  let connections = 0;
  const server = createServer({ key: pem('key'), cert: certificate }, (request, response) => {
    requests.push({ url: request.url ?? '', headers: request.headers });
    listener(request, response);
  });
  server.on('connection', () => connections++);
  // Clients may hang up on purpose.
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { port: (server.address() as AddressInfo).port, requests, connections: () => connections };
}

/**
 * A fetcher of references that may go to a server on this machine, as `references.test`.
 * @param port asked for with every fetch: it is known only once the test's server listens
 */
export function fetcherOf(port: () => number): ReferenceFetcher {
  return {
    fetch: (url, signal, accept) =>
      createReferenceFetcher({
        allowedHosts: [`references.test:${port()}`],
        maxBytes: 1_000_000,
        timeoutMs: 5000,
        lookup: async () => [{ address: '127.0.0.1', family: 4 }],
        ca: certificate,
        isAllowedAddress: (address) => address === '127.0.0.1',
      }).fetch(url, signal, accept),
  };
}
