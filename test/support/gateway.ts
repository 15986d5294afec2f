import { fileURLToPath } from 'node:url';
import type { DarkroomClient } from '../../src/client/client.js';
import { readWebConfig, type WebConfig } from '../../src/config/web-config.js';
import { type Gateway, startGateway } from '../../src/web/gateway.js';
import type { QueueOperations } from '../../src/web/queue-operations.js';
import { silent } from './serving.js';

const pageFolder = fileURLToPath(new URL('../../dist/src/web/page', import.meta.url));

/** A gateway with the built page, on a free port. */
export function gateway(
  client: DarkroomClient,
  variables: Partial<Record<keyof WebConfig, string>> = {},
  queue?: QueueOperations,
): Promise<Gateway> {
  const config = readWebConfig({}, { WEB_LISTEN: '127.0.0.1:0', ...variables });
  return startGateway({ config, client, log: silent, queue, pageFolder });
}

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Posts JSON. @param body omitted: a GET */
export async function ask(url: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(url, {
    headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
    ...(body !== undefined && { method: 'POST', body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}
