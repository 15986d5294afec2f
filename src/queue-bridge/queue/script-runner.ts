import type { Script } from './script.js';

/** A connection to Redis: over TCP, or over Upstash's REST. */
export interface ScriptRunner {
  readonly kind: 'redis' | 'upstash';
  /** Name of the store and its variable, for messages. */
  readonly store: string;
  /** True if scripts publish progress. */
  readonly publishes: boolean;
  /** @throws InferenceError UNREACHABLE when Redis does not answer in time */
  run(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown>;
  push(list: string, value: string): Promise<void>;
  /** Resolves when a list may have a payload, at the latest when the signal is aborted. */
  waitForPush(lists: readonly string[], signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}
