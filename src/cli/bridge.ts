import { createInterface } from 'node:readline';
import { Command } from 'commander';
import type { BridgeConfig } from '../config/bridge-config.js';
import { readBridgeConfig } from '../config/bridge-config.js';
import { environment } from '../environment.js';
import { createLog, type Logger } from '../log.js';
import { type RunningBridge, startBridge } from '../queue-bridge/bridge.js';
import type { JobQueue } from '../queue-bridge/queue/job-queue.js';
import { openQueue } from '../queue-bridge/queue/open-queue.js';
import { openStore } from '../storage/open-store.js';

const START_PATIENCE_MS = 10_000;

export function createBridgeCommand(): Command {
  return new Command('bridge')
    .description(
      'take jobs from Redis to a server, until SIGTERM; without a Redis, jobs are read from standard input, one JSON object a line',
    )
    .option('--server <host:port>', 'servers, separated by commas (DARKROOM_SERVER)')
    .option('--callback <url>', 'where callbacks go (CALLBACK_URL)')
    .action(bridge);
}

async function bridge({ server, callback }: { server?: string; callback?: string }): Promise<void> {
  const config = readBridgeConfig(environment(), {
    ...(server !== undefined && { DARKROOM_SERVER: server }),
    ...(callback !== undefined && { CALLBACK_URL: callback }),
  });
  const log = createLog(config.LOG_LEVEL);
  const { queue, running, stop } = await runBridge(config, log);
  process.stdout.write(`darkroom bridges ${queue.kind} to ${config.DARKROOM_SERVER.join(', ')}\n`);

  let isStopping = false;
  const end = async () => {
    // A second signal does not wait.
    if (isStopping) process.exit(1);
    isStopping = true;
    await stop();
    process.exit(0);
  };
  process.on('SIGTERM', () => void end());
  process.on('SIGINT', () => void end());
  if (queue.kind !== 'memory') return;
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() !== '') await queue.push(config.BRIDGE_SDXL_QUEUE, line);
  }
  while (!(await isIdle(queue, running))) await new Promise((resolve) => setTimeout(resolve, 50));
  await end();
}

export interface StartedBridge {
  readonly queue: JobQueue;
  readonly running: RunningBridge;
  stop(): Promise<void>;
}

/** A bridge with what the configuration names. @param endsServer whether its server ends with it */
export async function runBridge(config: BridgeConfig, log: Logger, endsServer = false): Promise<StartedBridge> {
  await assertAnswers(config);
  const queue = openQueue(config);
  const storage = await openStore(config);
  if (config.CALLBACK_URL === undefined) log.warn('CALLBACK_URL is not set: nobody is called back');
  const running = await startBridge({ config, queue, storage, log, endsServer });
  return {
    queue,
    running,
    async stop() {
      await running.stop();
      await queue.close();
    },
  };
}

/** Tells a wrong address or password at once: later on a bridge waits for its queue. */
async function assertAnswers(config: BridgeConfig): Promise<void> {
  const queue = openQueue(config, START_PATIENCE_MS);
  try {
    await queue.counts();
  } finally {
    await queue.close();
  }
}

/** Nothing waits, nothing runs, nobody is to be called. */
export async function isIdle(queue: JobQueue, { running }: RunningBridge): Promise<boolean> {
  const { pushed, waiting, delayed, leased, callbacks } = await queue.counts();
  return running + pushed + waiting + delayed + leased + callbacks === 0;
}
