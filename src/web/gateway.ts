import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import type { DarkroomClient } from '../client/client.js';
import type { WebConfig } from '../config/web-config.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { isLoopback, splitAddress } from '../std/address.js';
import { addApi } from './api.js';
import { Callers } from './callers.js';
import { assertSameSite, SECURITY_HEADERS } from './guard.js';
import { errorHeaders, httpStatus, requestError } from './http-errors.js';
import { JobFiles } from './job-files.js';
import { openaiError } from './openai/openai-error.js';
import { addOpenai } from './openai/routes.js';
import { readPage } from './page-files.js';
import type { QueueOperations } from './queue-operations.js';

/** Longest time that a request may take to arrive, in ms. */
const REQUEST_MS = 120_000;

export interface GatewayOptions {
  readonly config: WebConfig;
  readonly client: DarkroomClient;
  readonly log: Logger;
  /** Omitted: the page shows no queue. */
  readonly queue?: QueueOperations | undefined;
  /** Folder of the built page. Default: the build's. */
  readonly pageFolder?: string;
}

export interface Gateway {
  /** Base URL, with the bound port. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Serves the page and the API over HTTP: an ordinary client of a server.
 * @throws InferenceError INVALID_REQUEST if the address cannot be bound or the page was not built
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { config, client, log, queue } = options;
  const { host, port } = splitAddress(config.WEB_LISTEN);
  const isLocal = isLoopback(host);
  const page = readPage(options.pageFolder ?? fileURLToPath(new URL('page/', import.meta.url)));
  const callers = new Callers(client, !isLocal);
  const files = new JobFiles();
  const app = Fastify({ logger: false, forceCloseConnections: true, requestTimeout: REQUEST_MS });
  // JSON needs a preflight from other sites; plain text does not.
  app.removeContentTypeParser('text/plain');
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(SECURITY_HEADERS);
    assertSameSite(request, isLocal);
    if (request.method !== 'GET') await callers.assertKnown(request);
  });
  app.setErrorHandler((caught, request, reply) => sendError(caught, request, reply, log));
  app.setNotFoundHandler((request) => {
    throw new InferenceError('JOB_NOT_FOUND', `there is no ${request.method} ${request.url.split('?')[0]} here`);
  });
  for (const [path, { contentType, data, isImmutable }] of page) {
    app.get(path, (_, reply) =>
      reply
        .type(contentType)
        .header('cache-control', isImmutable ? 'public, max-age=31536000, immutable' : 'no-cache')
        .send(data),
    );
  }
  addApi(app, { callers, files, queue });
  if (config.WEB_OPENAI === 'true') await addOpenai(app, { callers, files });
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new InferenceError(
      'INVALID_REQUEST',
      `WEB_LISTEN ${config.WEB_LISTEN} cannot be bound: ${(error as Error).message}`,
    );
  }
  if (!isLocal)
    log.warn({ address: config.WEB_LISTEN }, 'tokens cross the network in the clear; put a proxy with TLS in front');
  const bound = (app.server.address() as AddressInfo).port;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    close: () => app.close(),
  };
}

function sendError(caught: unknown, request: FastifyRequest, reply: FastifyReply, log: Logger): FastifyReply {
  const error = requestError(caught);
  if (error.reason === 'INTERNAL')
    log.error({ err: error.cause ?? error, path: request.url.split('?')[0] }, 'a request failed');
  reply.code(httpStatus(error)).headers(errorHeaders(error));
  if (request.url.startsWith('/v1/')) return reply.send(openaiError(error));
  const { reason, message, retryable, violations } = error;
  return reply.send({ error: { reason, message, retryable, violations } });
}
