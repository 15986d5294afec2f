import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { CallbackBody } from '../../src/queue-bridge/callback/callback-body.js';
import { listening } from './upstash-front.js';

export interface ReceivedCallback {
  readonly headers: IncomingHttpHeaders;
  readonly raw: string;
  readonly body: CallbackBody;
  /** Status of the answer. 0: there was none. */
  readonly status: number;
}

export interface Receiver {
  readonly url: string;
  /** In order of arrival. */
  readonly received: readonly ReceivedCallback[];
  /** The callbacks of a job that were answered with 2xx. */
  taken(jobId: string): readonly ReceivedCallback[];
  stop(): Promise<void>;
}

/** A status, or `hang`: no answer at all. */
export type Answer = number | 'hang' | { readonly status: number; readonly headers: Record<string, string> };

/** A caller that records callbacks. @param answer chooses the answer. Omitted: 200 */
export async function startReceiver(
  answer: (body: CallbackBody, tries: number) => Answer = () => 200,
): Promise<Receiver> {
  const received: ReceivedCallback[] = [];
  const tries = new Map<string, number>();
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const raw = Buffer.concat(parts).toString('utf8');
    const body = JSON.parse(raw) as CallbackBody;
    const id = String(request.headers['webhook-id']);
    tries.set(id, (tries.get(id) ?? 0) + 1);
    const answered = answer(body, tries.get(id) ?? 0);
    const { status, headers } = typeof answered === 'object' ? answered : { status: answered, headers: {} };
    received.push({ headers: request.headers, raw, body, status: status === 'hang' ? 0 : status });
    if (status !== 'hang') response.writeHead(status, headers).end('{}');
  });
  const port = await listening(server);
  return {
    url: `http://127.0.0.1:${port}/functions/v1/job-callback`,
    received,
    taken: (jobId) => received.filter(({ body, status }) => body.job_id === jobId && status >= 200 && status < 300),
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
