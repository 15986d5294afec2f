import { timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createClient } from 'redis';

export interface UpstashFront {
  readonly url: string;
  readonly token: string;
  /** Number of commands so far, which Upstash bills. */
  readonly commands: number;
  stop(): Promise<void>;
}

/**
 * Upstash's REST in front of a real Redis: a command as a JSON array to `/`, several to `/pipeline`, the answer as
 * `{"result": …}` or `{"error": "…"}`, strings in base64 where the client asks for it, a bearer token.
 * https://upstash.com/docs/redis/features/restapi
 */
export async function startUpstashFront(redisUrl: string, token = 'front-token'): Promise<UpstashFront> {
  const client = createClient({ url: redisUrl, RESP: 2, socket: { reconnectStrategy: 20 } });
  client.on('error', () => undefined);
  await client.connect();
  let commands = 0;

  const run = async (command: unknown, inBase64: boolean): Promise<{ result: unknown } | { error: string }> => {
    commands += 1;
    try {
      if (!Array.isArray(command)) throw new Error('ERR failed to parse command');
      const result = await client.sendCommand(command.map(String));
      return { result: inBase64 ? encode(result) : result };
    } catch (error) {
      return { error: error instanceof Error ? error.message : String(error) };
    }
  };
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const answer = (status: number, body: unknown) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const given = Buffer.from(request.headers.authorization ?? '');
    const wanted = Buffer.from(`Bearer ${token}`);
    if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
      return answer(401, { error: 'WRONGPASS invalid or missing auth token' });
    }
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const body: unknown = JSON.parse(Buffer.concat(parts).toString('utf8'));
    const inBase64 = request.headers['upstash-encoding'] === 'base64';
    if (request.url === '/pipeline' && Array.isArray(body)) {
      const results = [];
      for (const command of body) results.push(await run(command, inBase64));
      return answer(200, results);
    }
    const result = await run(body, inBase64);
    return answer('error' in result ? 400 : 200, result);
  };
  const server = createServer((request, response) => {
    handle(request, response).catch(() => response.writeHead(500).end('{"error":"ERR internal"}'));
  });
  const port = await listening(server);
  return {
    url: `http://127.0.0.1:${port}`,
    token,
    get commands() {
      return commands;
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      client.destroy();
    },
  };
}

/** Listens on a free port. */
export function listening(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
}

function encode(value: unknown): unknown {
  if (typeof value === 'string') return value === 'OK' ? value : Buffer.from(value).toString('base64');
  return Array.isArray(value) ? value.map(encode) : value;
}
