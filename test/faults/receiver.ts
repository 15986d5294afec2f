import { createServer } from 'node:http';
import type { CallbackBody } from '../../src/queue-bridge/callback/callback-body.js';
import type { Seeded } from '../support/seeded.js';
import { listening } from '../support/upstash-front.js';

/** A callback that reached the caller, whatever the answer. */
export interface Note {
  readonly webhookId: string;
  readonly raw: string;
  readonly body: CallbackBody;
  readonly isTaken: boolean;
}

export interface FaultyReceiver {
  readonly url: string;
  readonly notes: readonly Note[];
  /** Answers every callback from now on. */
  mend(): void;
  stop(): Promise<void>;
}

/** A caller that at random fails, hangs, accepts a callback and breaks off, or answers twice. */
export async function startFaultyReceiver(random: Seeded): Promise<FaultyReceiver> {
  const notes: Note[] = [];
  let isMended = false;
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    try {
      for await (const part of request) parts.push(part);
    } catch {
      return; // its sender was killed
    }
    const raw = Buffer.concat(parts).toString('utf8');
    const dice = isMended ? 1 : random.next();
    const isTaken = dice >= 0.2;
    notes.push({
      webhookId: String(request.headers['webhook-id']),
      raw,
      body: JSON.parse(raw) as CallbackBody,
      isTaken,
    });
    if (dice < 0.1) response.writeHead(503).end();
    else if (dice < 0.15) response.writeHead(429, { 'retry-after': '0' }).end();
    else if (dice < 0.2)
      return; // hangs
    else if (dice < 0.25) request.socket.destroy();
    else if (dice < 0.3) {
      response.end('{}');
      request.socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
    } else response.end('{}');
  });
  const port = await listening(server);
  return {
    url: `http://127.0.0.1:${port}/functions/v1/job-callback`,
    notes,
    mend() {
      isMended = true;
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
