import { once } from 'node:events';
import { createServer } from 'node:http';
import type { CallbackBody } from '../../queue-bridge/callback/callback-body.js';

export interface DemoReceiver {
  readonly url: string;
  /** Callbacks of a job, in the order of their arrival. */
  of(jobId: string): readonly CallbackBody[];
  close(): void;
}

/** The receiver that a caller runs: it accepts callbacks and keeps them. */
export async function startDemoReceiver(): Promise<DemoReceiver> {
  const received: CallbackBody[] = [];
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    received.push(JSON.parse(Buffer.concat(parts).toString('utf8')) as CallbackBody);
    response.end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}/functions/v1/job-callback`,
    of: (jobId) => received.filter(({ job_id }) => job_id === jobId),
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
