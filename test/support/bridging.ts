import { onTestFinished } from 'vitest';
import type { BridgeConfig } from '../../src/config/bridge-config.js';
import { readBridgeConfig } from '../../src/config/bridge-config.js';
import type { JobTypes } from '../../src/job-types.js';
import type { Logger } from '../../src/log.js';
import type { Traces } from '../../src/observe/traces.js';
import { type RunningBridge, startBridge } from '../../src/queue-bridge/bridge.js';
import type { CallbackBody } from '../../src/queue-bridge/callback/callback-body.js';
import type { BridgeObserver } from '../../src/queue-bridge/observe/bridge-observer.js';
import type { JobQueue } from '../../src/queue-bridge/queue/job-queue.js';
import { MemoryQueue } from '../../src/queue-bridge/queue/memory-queue.js';
import type { AssetStore } from '../../src/storage/asset-store.js';
import { LocalStore } from '../../src/storage/local-store.js';
import { type Answer, type Receiver, startReceiver } from './receiver.js';
import { silent, until } from './serving.js';
import { tempFolder } from './temp-folder.js';

export interface Bridging {
  readonly queue: JobQueue;
  readonly receiver: Receiver;
  readonly config: BridgeConfig;
  /** Folder with the files. */
  readonly folder: string;
  /** Starts one more bridge on the same queue. */
  start(changes?: BridgingChanges): Promise<RunningBridge>;
  /** Pushes as producers do. */
  push(payload: unknown, list?: string): Promise<void>;
  /** Waits for the callback that ends a job. */
  ended(jobId: string): Promise<CallbackBody>;
}

export interface BridgingChanges {
  readonly queue?: JobQueue;
  readonly storage?: AssetStore;
  readonly variables?: Readonly<Record<string, string>>;
  readonly jobTypes?: JobTypes;
  readonly observers?: readonly Partial<BridgeObserver>[];
  readonly traces?: Traces | undefined;
  readonly log?: Logger;
}

/** A queue, a receiver and a folder of the running test, for bridges to a server. */
export async function bridging(
  address: string,
  {
    answer,
    variables = {},
    queue,
  }: {
    readonly answer?: (body: CallbackBody, tries: number) => Answer;
    readonly variables?: Readonly<Record<string, string>>;
    readonly queue?: (config: BridgeConfig) => JobQueue;
  } = {},
): Promise<Bridging> {
  const folder = await tempFolder();
  const receiver = await startReceiver(answer);
  const read = (changes: Readonly<Record<string, string>> = {}) =>
    readBridgeConfig(
      {},
      {
        DARKROOM_SERVER: address,
        CALLBACK_URL: receiver.url,
        BRIDGE_RETRY_MS: '20',
        CALLBACK_RETRY_MS: '20',
        BRIDGE_DRAIN_MS: '0',
        ...variables,
        ...changes,
      },
    );
  const config = read();
  const own =
    queue?.(config) ??
    new MemoryQueue({
      lanes: config.lanes,
      callsBack: true,
      retentionMs: config.BRIDGE_RETENTION_MS,
    });
  const storage = new LocalStore({ folder });
  const bridges: RunningBridge[] = [];
  onTestFinished(async () => {
    await Promise.all(bridges.map((bridge) => bridge.stop()));
    await own.close();
    await receiver.stop();
  });
  return {
    queue: own,
    receiver,
    config,
    folder,
    async start(changes = {}) {
      const { queue: used = own, storage: store = storage, variables: more, ...options } = changes;
      const bridge = await startBridge({ config: read(more), queue: used, storage: store, log: silent, ...options });
      // A bridge with its own queue may hang, so the test stops it.
      if (changes.queue === undefined) bridges.push(bridge);
      return bridge;
    },
    push: (payload, list = config.lanes[0].queue) =>
      own.push(list, typeof payload === 'string' ? payload : JSON.stringify(payload)),
    async ended(jobId) {
      let found: CallbackBody | undefined;
      await until(() => {
        found = receiver.taken(jobId).find(({ body }) => body.status !== 'processing')?.body;
        return found !== undefined;
      });
      if (found === undefined) throw new Error(jobId);
      return found;
    },
  };
}

/** A payload of a job that takes milliseconds. */
export function quickPayload(
  id: string,
  more: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  const { config, ...rest } = more;
  return {
    id,
    type: 'sdxl_image_fast',
    prompt: 'a red circle',
    user_id: 'ann',
    ...rest,
    config: { width: 64, height: 64, steps: 2, ...(config as object | undefined) },
  };
}
