import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Logger } from '../log.js';
import { splitAddress } from '../std/address.js';
import type { MetricsRegistry } from './metrics-registry.js';

/** Value of a listen variable that turns the address off. */
export const OFF = 'off';

/** Scrapers and kubelets keep few connections. */
const MAX_CONNECTIONS = 64;
const REQUEST_MS = 10_000;
/** Time between two looks for requests that take longer, in ms. */
const CHECK_MS = 1000;
const BASE = 'http://localhost';

export interface MetricsServerOptions {
  /** host:port. Port 0 picks a free port. */
  readonly address: string;
  /** Variable that has the address, for messages. */
  readonly variable: string;
  readonly registry: MetricsRegistry;
  /** Says in a sentence why no job would be taken now; undefined if one would. @param model undefined: any model */
  readonly problem: (model: string | undefined) => string | undefined;
  readonly log: Logger;
}

export interface MetricsServer {
  /** The bound port; undefined if the address could not be bound. */
  readonly port: number | undefined;
  close(): Promise<void>;
}

/**
 * Serves `/metrics`, `/healthz` and `/readyz` over HTTP. An address that cannot be bound is logged as an error, and jobs run
 * without it: watching must not end what is watched.
 */
export async function startMetricsServer(options: MetricsServerOptions): Promise<MetricsServer> {
  const { address, variable, log } = options;
  const server = createServer(
    { requestTimeout: REQUEST_MS, connectionsCheckingInterval: CHECK_MS },
    (request, response) => {
      respond(request, response, options).catch((error: unknown) => {
        log.error({ err: error }, 'metrics could not be written');
        if (!response.headersSent) response.writeHead(500);
        response.end();
      });
    },
  );
  keepNewest(server);
  const { host, port: wanted } = splitAddress(address);
  const port = await new Promise<number | undefined>((resolve) => {
    server.on('error', (error) => {
      if (server.listening) log.warn({ problem: error.message }, 'the server of metrics failed');
      else log.error({ address, problem: error.message }, `metrics are not served: ${variable} cannot be bound`);
      resolve(undefined);
    });
    server.listen(wanted, host, () => resolve((server.address() as AddressInfo).port));
  });
  if (port !== undefined) log.info({ host, port }, 'metrics are served');
  // Neither an open connection nor the listener keeps the process.
  server.unref();
  return {
    port,
    async close() {
      if (port === undefined) return;
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/**
 * Closes the oldest connection where there are too many: a probe gets its answer while others hold connections and say nothing.
 */
function keepNewest(server: Server): void {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    const [oldest] = open;
    if (open.size > MAX_CONNECTIONS) oldest?.destroy();
  });
}

async function respond(
  { method, url = '', headers }: IncomingMessage,
  response: ServerResponse,
  { registry, problem }: MetricsServerOptions,
): Promise<void> {
  const answer = (status: number, text: string, contentType = 'text/plain; charset=utf-8') => {
    response.writeHead(status, { 'content-type': contentType, 'cache-control': 'no-store' });
    response.end(method === 'HEAD' ? undefined : text);
  };
  if (method !== 'GET' && method !== 'HEAD') return answer(405, 'use GET\n');
  if (!URL.canParse(url, BASE)) return answer(400, 'the path cannot be read\n');
  const { pathname, searchParams } = new URL(url, BASE);
  switch (pathname) {
    case '/metrics': {
      const { contentType, text } = await registry.expose(headers.accept);
      return answer(200, text, contentType);
    }
    case '/healthz':
      return answer(200, 'ok\n');
    case '/readyz': {
      const found = problem(searchParams.get('model') ?? undefined);
      return found === undefined ? answer(200, 'ready\n') : answer(503, `${found}\n`);
    }
    default:
      return answer(404, 'the paths are /metrics, /healthz and /readyz\n');
  }
}
