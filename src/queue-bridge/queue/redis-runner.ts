import { setTimeout as sleep } from 'node:timers/promises';
import { createClient, ErrorReply } from 'redis';
import { whenAborted } from '../../std/when-aborted.js';
import { retry } from './retry.js';
import type { Script } from './script.js';
import type { ScriptRunner } from './script-runner.js';
import { storeError } from './store-error.js';

type Client = ReturnType<typeof newClient>;

/** How long one blocking wait takes; then it is asked again, so that a connection that died is noticed. */
const BLOCK_SECONDS = 5;
/** Answers that say "not now": https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors */
const TEMPORARY = /^(LOADING|BUSY|MASTERDOWN|READONLY|TRYAGAIN|CLUSTERDOWN)/;

/** A Redis over TCP, 6.2 or newer. Connects on first use, again after every break. */
export class RedisRunner implements ScriptRunner {
  readonly kind = 'redis';
  readonly publishes = true;
  readonly #url: string;
  readonly #patienceMs: number;
  readonly #closing = new AbortController();
  /** One for commands, and one for every list that is waited on: a blocking command holds its connection. */
  readonly #clients = new Map<string, Promise<Client>>();
  readonly #waits = new Map<string, Promise<void>>();

  /** Why there is no connection, as far as it is known: commands say only that there is none. */
  #connectionError: unknown;

  /** @param url redis://… or rediss://… @param patienceMs how long a command waits for a Redis that does not answer */
  constructor(url: string, patienceMs: number) {
    this.#url = url;
    this.#patienceMs = patienceMs;
  }

  run({ source, sha1 }: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    const options = { keys: [...keys], arguments: [...args] };
    return this.#retry(async (client) => {
      try {
        return await client.evalSha(sha1, options);
      } catch (error) {
        // A Redis that was started again has forgotten its scripts.
        if (!(error instanceof ErrorReply) || !error.message.startsWith('NOSCRIPT')) throw error;
        return client.eval(source, options);
      }
    });
  }

  async push(list: string, value: string): Promise<void> {
    await this.#retry((client) => client.lPush(list, value));
  }

  async waitForPush(lists: readonly string[], signal: AbortSignal): Promise<void> {
    await Promise.race([whenAborted(signal), ...lists.map((list) => this.#pushed(list))]);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const client of this.#clients.values()) (await client).destroy();
    this.#clients.clear();
  }

  /** One wait for each list, shared by all who ask meanwhile. */
  #pushed(list: string): Promise<void> {
    let wait = this.#waits.get(list);
    if (wait === undefined) {
      wait = this.#block(list).finally(() => this.#waits.delete(list));
      this.#waits.set(list, wait);
    }
    return wait;
  }

  /** Moves the tail of a list to its tail: nothing changes, and the answer comes when there is a tail. */
  async #block(list: string): Promise<void> {
    try {
      const client = await this.#client(`wait:${list}`);
      await client.blMove(list, list, 'RIGHT', 'RIGHT', BLOCK_SECONDS);
    } catch {
      await sleep(500, undefined, { signal: this.#closing.signal }).catch(() => undefined);
    }
  }

  async #retry<T>(ask: (client: Client) => Promise<T>): Promise<T> {
    const attempt = async () => {
      try {
        return await ask(await this.#client('commands'));
      } catch (error) {
        throw error instanceof ErrorReply ? error : (this.#connectionError ?? error);
      }
    };
    try {
      return await retry(attempt, {
        store: 'Redis (REDIS_URL)',
        patienceMs: this.#patienceMs,
        isTemporary: (error) => !(error instanceof ErrorReply) || TEMPORARY.test(error.message),
        signal: this.#closing.signal,
      });
    } catch (error) {
      throw error instanceof ErrorReply ? storeError('Redis (REDIS_URL)', error.message) : error;
    }
  }

  #client(name: string): Promise<Client> {
    let client = this.#clients.get(name);
    if (client === undefined) {
      client = this.#connected(newClient(this.#url));
      this.#clients.set(name, client);
    }
    return client;
  }

  /** Connecting goes on by itself; commands fail until it is done. */
  async #connected(client: Client): Promise<Client> {
    client.on('error', (error: unknown) => {
      this.#connectionError = error;
    });
    client.on('ready', () => {
      this.#connectionError = undefined;
    });
    client.connect().catch((error: unknown) => {
      this.#connectionError = error;
    });
    return client;
  }
}

function newClient(url: string) {
  return createClient({
    url,
    RESP: 2,
    // A command that cannot be sent fails at once and is asked again: nothing piles up while Redis is away.
    disableOfflineQueue: true,
    pingInterval: 5000,
    socket: {
      connectTimeout: 5000,
      socketTimeout: 20_000,
      reconnectStrategy: (retries) => Math.min(25 * 2 ** retries, 1000),
    },
  });
}
