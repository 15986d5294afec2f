import type { Script } from './script.js';

/** One way to a Redis: over TCP, or over Upstash's REST. */
export interface ScriptRunner {
  readonly kind: 'redis' | 'upstash';
  /** Whether scripts publish progress. */
  readonly publishes: boolean;
  /** @throws InferenceError UNREACHABLE when Redis does not answer for long */
  run(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown>;
  push(list: string, value: string): Promise<void>;
  /** Resolves when a list may have something, at the latest when the signal says so. */
  waitForPush(lists: readonly string[], signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}
