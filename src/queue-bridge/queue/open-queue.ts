import type { BridgeConfig } from '../../config/bridge-config.js';
import { InferenceError } from '../../errors.js';
import type { JobQueue, JobQueueOptions } from './job-queue.js';
import { MemoryQueue } from './memory-queue.js';
import { RedisRunner } from './redis-runner.js';
import { ScriptQueue } from './script-queue.js';
import { UpstashRunner } from './upstash-runner.js';

/** Twice the default lease: after this, waiting for the store rarely saves a job. BRIDGE_LEASE_MS may be longer. */
const PATIENCE_MS = 60_000;

/**
 * Opens the queue that the configuration names: Redis, otherwise Upstash, otherwise one in this process.
 * @param patienceMs longest wait of a call for a store that does not answer. Omitted: a minute
 * @param onCommand called for every command to a store
 */
export function openQueue(
  config: BridgeConfig,
  patienceMs = PATIENCE_MS,
  onCommand?: JobQueueOptions['onCommand'],
): JobQueue {
  const { REDIS_URL, UPSTASH_REDIS_REST_URL, UPSTASH_REDIS_REST_TOKEN, BRIDGE_PREFIX: prefix } = config;
  const options: JobQueueOptions = {
    lanes: config.lanes,
    callsBack: config.CALLBACK_URL !== undefined,
    retentionMs: config.BRIDGE_RETENTION_MS,
    onCommand,
  };
  if (REDIS_URL !== undefined) return new ScriptQueue(new RedisRunner(REDIS_URL, patienceMs), { ...options, prefix });
  if (UPSTASH_REDIS_REST_URL === undefined) return new MemoryQueue(options);
  if (UPSTASH_REDIS_REST_TOKEN === undefined) {
    throw new InferenceError(
      'INVALID_REQUEST',
      'UPSTASH_REDIS_REST_TOKEN must be set with UPSTASH_REDIS_REST_URL; the Upstash console shows both',
    );
  }
  const runner = new UpstashRunner(UPSTASH_REDIS_REST_URL, UPSTASH_REDIS_REST_TOKEN, patienceMs);
  return new ScriptQueue(runner, { ...options, prefix });
}
