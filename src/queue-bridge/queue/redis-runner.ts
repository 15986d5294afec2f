import { setTimeout as sleep } from 'node:timers/promises';
import { createClient, ErrorReply } from 'redis';
import { whenAborted } from '../../std/when-aborted.js';
import { retry } from './retry.js';
import type { Script } from './script.js';
import type { ScriptRunner } from './script-runner.js';
import { storeError } from './store-error.js';

type Client = ReturnType<typeof newClient>;

/** Length of one blocking wait. It is repeated, so that a dead connection is noticed. */
const BLOCK_SECONDS = 5;
/** Replies of a Redis that is not ready yet: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors */
const TEMPORARY = /^(LOADING|BUSY|MASTERDOWN|READONLY|TRYAGAIN|CLUSTERDOWN)/;

/** A Redis over TCP, 6.2 or newer. It connects on first use and reconnects after every break. */
export class RedisRunner implements ScriptRunner {
  readonly kind = 'redis';
  readonly store = 'Redis (REDIS_URL)';
  readonly publishes = true;
  readonly #url: string;
  readonly #patienceMs: number;
  readonly #closing = new AbortController();
  /** One connection for commands, and one for each list that is waited on: a blocking command holds its connection. */
  readonly #clients = new Map<string, Promise<Client>>();
  readonly #waits = new Map<string, Promise<void>>();

  /** Reason why there is no connection, if it is known. The errors of commands do not have it. */
  #connectionError: unknown;

  /** @param url redis://… or rediss://… @param patienceMs longest wait of a command for a Redis that does not answer */
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
        // A restarted Redis has lost its scripts.
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

  /** Waits for a push on a list. Concurrent callers share one wait. */
  #pushed(list: string): Promise<void> {
    let wait = this.#waits.get(list);
    if (wait === undefined) {
      wait = this.#block(list).finally(() => this.#waits.delete(list));
      this.#waits.set(list, wait);
    }
    return wait;
  }

  /** Moves the tail of a list to its tail: nothing changes, and Redis answers when there is a tail. */
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
        store: this.store,
        patienceMs: this.#patienceMs,
        isTemporary: (error) => !(error instanceof ErrorReply) || TEMPORARY.test(error.message),
        signal: this.#closing.signal,
      });
    } catch (error) {
      throw error instanceof ErrorReply ? storeError(this.store, error.message) : error;
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

  /** The client connects in the background; commands fail until it has. */
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
    // A command that cannot be sent fails at once and is retried, so nothing piles up while Redis is away.
    disableOfflineQueue: true,
    pingInterval: 5000,
    socket: {
      connectTimeout: 5000,
      socketTimeout: 20_000,
      reconnectStrategy: (retries) => Math.min(25 * 2 ** retries, 1000),
    },
  });
}
