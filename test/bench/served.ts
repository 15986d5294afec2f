/** What benches share that measure a server from outside, as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { connect, type DarkroomClient } from '../../src/client/client.js';
import type { GetServerStatusResponse } from '../../src/gen/darkroom/v1/model_service.js';

/** @param args of `darkroom serve` */
export async function startServer(
  args: readonly string[],
  variables: NodeJS.ProcessEnv = {},
): Promise<{ server: ChildProcess; address: string }> {
  const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
  // One thread: the server keeps a core of its own, as a GPU leaves it one.
  const env = {
    ...process.env,
    ENGINE_THREADS: '1',
    LOG_LEVEL: 'error',
    DARKROOM_LISTEN: '127.0.0.1:0',
    METRICS_LISTEN: 'off',
    ...variables,
  };
  const server = spawn(process.execPath, [main, 'serve', ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: server.stdout })) {
    const address = /^darkroom listens on (.+)$/.exec(line)?.[1];
    if (address !== undefined) return { server, address };
  }
  throw new Error('the server ended before it listened');
}

/** Starts a server, does something with it once its first model is loaded, and ends it. @param args of `darkroom serve` */
export async function withServer(
  args: readonly string[],
  variables: NodeJS.ProcessEnv,
  use: (client: DarkroomClient) => Promise<void>,
): Promise<void> {
  const { server, address } = await startServer(args, variables);
  const client = connect(address);
  try {
    await ready(client);
    await use(client);
  } finally {
    client.close();
    server.kill('SIGTERM');
    await once(server, 'exit');
  }
}

/** Resolves when the first model was loaded. */
export async function ready(client: DarkroomClient): Promise<void> {
  while ((await status(client)).models[0]?.device === '') await new Promise((resolve) => setTimeout(resolve, 5));
}

export function status(client: DarkroomClient): Promise<GetServerStatusResponse> {
  return new Promise((resolve, reject) =>
    client.models.getServerStatus({}, client.metadata, (error, response) =>
      error ? reject(error) : resolve(response),
    ),
  );
}

export function quantile(numbers: readonly number[], q: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}
