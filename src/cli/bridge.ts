import { createInterface } from 'node:readline';
import { Command } from 'commander';
import { readBridgeConfig } from '../config/bridge-config.js';
import { environment } from '../environment.js';
import { createLog } from '../log.js';
import { isIdle, runBridge } from '../queue-bridge/run-bridge.js';
import { say } from './output/say.js';
import { onShutdown } from './shutdown.js';

export function createBridgeCommand(): Command {
  return new Command('bridge')
    .description(
      'run jobs from Redis on servers, until SIGTERM; without Redis, read jobs from standard input, one JSON object per line',
    )
    .option('--server <host:port>', 'servers, separated by commas (DARKROOM_SERVER)')
    .option('--callback <url>', 'URL that callbacks are sent to (CALLBACK_URL)')
    .action(bridge);
}

async function bridge({ server, callback }: { server?: string; callback?: string }): Promise<void> {
  const config = readBridgeConfig(environment(), {
    ...(server !== undefined && { DARKROOM_SERVER: server }),
    ...(callback !== undefined && { CALLBACK_URL: callback }),
  });
  const log = createLog(config.LOG_LEVEL);
  const running = await runBridge({ config, log });
  const { queue, stop } = running;
  say(`darkroom bridges ${queue.kind} to ${config.DARKROOM_SERVER.join(', ')}`);

  const shutdown = onShutdown(stop, config.BRIDGE_DRAIN_MS);
  if (queue.kind !== 'memory') return;
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() !== '') await queue.push(config.lanes[0].queue, line);
  }
  while (!(await isIdle(running))) await new Promise((resolve) => setTimeout(resolve, 50));
  await shutdown.stop();
}
