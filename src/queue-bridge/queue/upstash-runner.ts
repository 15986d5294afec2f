import { errors, Redis } from '@upstash/redis';
import { whenAborted } from '../../std/when-aborted.js';
import { retry } from './retry.js';
import type { Script } from './script.js';
import type { ScriptRunner } from './script-runner.js';
import { storeError } from './store-error.js';

const REQUEST_TIMEOUT_MS = 15_000;
/** Replies of a Redis that is not ready yet. */
const TEMPORARY = /^(LOADING|BUSY|TRYAGAIN|READONLY)/;

/** A Redis behind Upstash's REST: https://upstash.com/docs/redis/features/restapi. Commands cannot block there, so pushes are found by polling. */
export class UpstashRunner implements ScriptRunner {
  readonly kind = 'upstash';
  readonly store = 'Upstash (UPSTASH_REDIS_REST_URL)';
  readonly publishes = false;
  readonly #redis: Redis;
  readonly #patienceMs: number;
  readonly #closing = new AbortController();

  /** @param patienceMs longest wait of a command for a Redis that does not answer */
  constructor(url: string, token: string, patienceMs: number) {
    this.#patienceMs = patienceMs;
    this.#redis = new Redis({
      url,
      token,
      // Values are JSON that must come back byte for byte. The client's parser would round a 64-bit seed.
      automaticDeserialization: false,
      enableTelemetry: false,
      enableAutoPipelining: false,
      retry: false,
      signal: () => AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  }

  run({ source, sha1 }: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    return this.#retry(async () => {
      try {
        return await this.#redis.evalsha(sha1, [...keys], [...args]);
      } catch (error) {
        if (!(error instanceof errors.UpstashError) || !error.message.startsWith('NOSCRIPT')) throw error;
        return this.#redis.eval(source, [...keys], [...args]);
      }
    });
  }

  async push(list: string, value: string): Promise<void> {
    await this.#retry(() => this.#redis.lpush(list, value));
  }

  waitForPush(_lists: readonly string[], signal: AbortSignal): Promise<void> {
    return whenAborted(signal);
  }

  async close(): Promise<void> {
    this.#closing.abort();
  }

  async #retry<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await retry(ask, {
        store: this.store,
        patienceMs: this.#patienceMs,
        isTemporary: (error) =>
          !(error instanceof errors.UpstashError) ||
          error instanceof errors.UpstashJSONParseError ||
          TEMPORARY.test(error.message),
        signal: this.#closing.signal,
      });
    } catch (error) {
      if (!(error instanceof errors.UpstashError)) throw error;
      // The client's message repeats the whole command, prompts included.
      const [said = ''] = error.message.split(', command was: ');
      throw storeError(this.store, said);
    }
  }
}
