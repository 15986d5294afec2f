import { createInterface } from 'node:readline';
import { Command } from 'commander';
import { readBridgeConfig } from '../config/bridge-config.js';
import { environment } from '../environment.js';
import { createLog } from '../log.js';
import { isIdle, runBridge } from '../queue-bridge/run-bridge.js';

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
  process.stdout.write(`darkroom bridges ${queue.kind} to ${config.DARKROOM_SERVER.join(', ')}\n`);

  let isStopping = false;
  const end = async () => {
    // A second signal ends the process at once.
    if (isStopping) process.exit(1);
    isStopping = true;
    await stop();
    process.exit(0);
  };
  process.on('SIGTERM', () => void end());
  process.on('SIGINT', () => void end());
  if (queue.kind !== 'memory') return;
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() !== '') await queue.push(config.lanes[0].queue, line);
  }
  while (!(await isIdle(running))) await new Promise((resolve) => setTimeout(resolve, 50));
  await end();
}
