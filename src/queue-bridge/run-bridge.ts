import type { BridgeConfig } from '../config/bridge-config.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import { openStore } from '../storage/open-store.js';
import { type BridgeOptions, type RunningBridge, startBridge } from './bridge.js';
import { BridgeWatch } from './observe/watch-bridge.js';
import type { JobQueue } from './queue/job-queue.js';
import { openQueue } from './queue/open-queue.js';

const START_PATIENCE_MS = 10_000;

export interface RunBridgeOptions extends Pick<BridgeOptions, 'endsServer' | 'jobTypes'> {
  readonly config: BridgeConfig;
  readonly log: Logger;
}

/** A bridge with the queue and the storage of its configuration. */
export interface ConfiguredBridge {
  readonly queue: JobQueue;
  readonly bridge: RunningBridge;
  /** Port of the metrics; undefined if they are not served. */
  readonly metricsPort: number | undefined;
  /** Stops the bridge and closes its queue. */
  stop(): Promise<void>;
}

/** Starts a bridge with the queue and the storage that the configuration names. */
export async function runBridge({ config, log, ...options }: RunBridgeOptions): Promise<ConfiguredBridge> {
  await assertUsable(config, log);
  const { endsServer: hasServer = false, jobTypes } = options;
  const watch = await BridgeWatch.open({ config, log, jobTypes, hasServer });
  const queue = openQueue(config, undefined, watch.onCommand);
  const storage = await openStore(config);
  if (config.CALLBACK_URL === undefined) log.warn('CALLBACK_URL is not set: no callbacks are sent');
  const bridge = await startBridge({
    config,
    queue,
    storage,
    log,
    observers: watch.observers,
    traces: watch.traces,
    ...options,
  });
  const metricsPort = await watch.listen(queue, bridge);
  return {
    queue,
    bridge,
    metricsPort,
    async stop() {
      await bridge.stop();
      await queue.close();
      await watch.stop();
    },
  };
}

/**
 * Fails at the start for a wrong address or password, and for a store that takes no writes. Later the bridge waits for its queue.
 * @throws InferenceError UNREACHABLE, UNAUTHENTICATED, or INVALID_REQUEST with the store's own words
 */
async function assertUsable(config: BridgeConfig, log: Logger): Promise<void> {
  const queue = openQueue(config, START_PATIENCE_MS);
  try {
    const { write, publish } = await queue.check();
    if (write !== undefined) {
      throw new InferenceError(
        'INVALID_REQUEST',
        `the store of the queue takes no writes: ${write}; check its user's rights`,
      );
    }
    if (publish !== undefined) {
      const problem = `${publish}; grant the user the channels ${config.BRIDGE_PREFIX}progress:*`;
      log.warn({ problem }, 'progress is stored, but not published');
    }
    await queue.counts();
  } finally {
    await queue.close();
  }
}

/** True if no job waits or runs, and no callback or usage record is due. */
export async function isIdle({ queue, bridge }: ConfiguredBridge): Promise<boolean> {
  const { pushed, waiting, delayed, leased, callbacks, usage } = await queue.counts();
  return bridge.running + pushed + waiting + delayed + leased + callbacks + usage === 0;
}
