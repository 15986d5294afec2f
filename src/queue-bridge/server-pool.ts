import { setTimeout as sleep } from 'node:timers/promises';
import { type ConnectOptions, connect, type DarkroomClient, serverStatus } from '../client/client.js';
import { ModelState } from '../gen/darkroom/v1/model_service.js';
import type { Logger } from '../log.js';
import { createBackoff } from '../std/backoff.js';

/** Time between two polls of a server that answers: it may drain or lose a model. */
const POLL_MS = 5000;
const POLL_TIMEOUT_MS = 5000;

export interface PoolServer {
  readonly address: string;
  readonly client: DarkroomClient;
}

interface Entry extends PoolServer {
  /** Families of its models, sorted; none while it does not answer or drains. */
  lanes: readonly string[];
  running: number;
  /** Ends the wait for the next poll. */
  nextPoll: AbortController;
  /** Ends with the first poll, whatever it found. */
  firstPoll: Promise<void>;
}

export interface ServerPoolOptions {
  readonly addresses: readonly string[];
  readonly connection: ConnectOptions;
  readonly log: Logger;
  /** Called when the lanes of a server change. */
  readonly onChange: () => void;
}

/** The servers that run jobs. The pool polls their state. */
export class ServerPool {
  readonly #entries: readonly Entry[];
  readonly #options: ServerPoolOptions;
  readonly #closing = new AbortController();

  constructor(options: ServerPoolOptions) {
    this.#options = options;
    this.#entries = options.addresses.map((address) => ({
      address,
      client: connect(address, options.connection),
      lanes: [],
      running: 0,
      nextPoll: new AbortController(),
      firstPoll: Promise.resolve(),
    }));
    for (const entry of this.#entries) {
      entry.firstPoll = this.#poll(entry);
      void entry.firstPoll.then(() => this.#watch(entry));
    }
  }

  /** The server of a lane with the fewest jobs of this bridge; undefined if no server has the lane. */
  leastBusy(lane: string): PoolServer | undefined {
    const able = this.#entries.filter((entry) => entry.lanes.includes(lane));
    return able.reduce<Entry | undefined>(
      (best, entry) => (best && best.running <= entry.running ? best : entry),
      undefined,
    );
  }

  /**
   * The server at an address, if it has the lane now. One that was not asked yet is waited for: a bridge that has just started would
   * take a server that is slower to answer than another for one that has lost its jobs.
   */
  async at(address: string, lane: string): Promise<PoolServer | undefined> {
    const entry = this.#entries.find((other) => other.address === address);
    await entry?.firstPoll;
    return entry?.lanes.includes(lane) ? entry : undefined;
  }

  /** Counts a job of a server until the returned function releases it. */
  acquire({ address }: PoolServer): () => void {
    const entry = this.#entries.find((other) => other.address === address);
    if (entry === undefined) return () => undefined;
    entry.running += 1;
    return () => {
      entry.running -= 1;
    };
  }

  /** Gives a server no more jobs until a poll finds it ready. Call it when the server does not answer or drains. */
  markUnavailable(address: string): void {
    const entry = this.#entries.find((other) => other.address === address);
    if (entry === undefined) return;
    this.#setLanes(entry, []);
    entry.nextPoll.abort();
  }

  close(): void {
    this.#closing.abort();
    for (const { client } of this.#entries) client.close();
  }

  async #watch(entry: Entry): Promise<void> {
    const backoff = createBackoff({ initial: 100, max: POLL_MS });
    while (!this.#closing.signal.aborted) {
      if (entry.lanes.length > 0) backoff.reset();
      entry.nextPoll = new AbortController();
      const signal = AbortSignal.any([entry.nextPoll.signal, this.#closing.signal]);
      await sleep(entry.lanes.length > 0 ? POLL_MS : backoff.next(), undefined, { signal }).catch(() => undefined);
      if (!this.#closing.signal.aborted) await this.#poll(entry);
    }
  }

  async #poll(entry: Entry): Promise<void> {
    this.#setLanes(entry, await this.#fetchLanes(entry));
  }

  async #fetchLanes({ client }: Entry): Promise<readonly string[]> {
    try {
      const { draining, models } = await serverStatus(client, POLL_TIMEOUT_MS);
      if (draining) return [];
      const able = models.filter(({ state }) => state !== ModelState.MODEL_STATE_FAILED);
      return [...new Set(able.map(({ family }) => family))].sort();
    } catch {
      return [];
    }
  }

  #setLanes(entry: Entry, lanes: readonly string[]): void {
    if (lanes.join() === entry.lanes.join()) return;
    entry.lanes = lanes;
    this.#options.log.info({ server: entry.address, lanes }, 'server changed');
    this.#options.onChange();
  }
}
