import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type DarkroomClient, serverStatus } from '../client/client.js';
import { ModelState } from '../gen/darkroom/v1/model_service.js';
import type { Logger } from '../log.js';
import { createBackoff } from '../std/backoff.js';

/** How often a server that answers is asked again: it may drain, or lose a model. */
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
  /** Ends the wait for the next look. */
  nextPoll: AbortController;
}

export interface ServerPoolOptions {
  readonly addresses: readonly string[];
  /** Bearer token of the servers. */
  readonly token?: string | undefined;
  readonly log: Logger;
  /** Called when a server or a model comes or goes. */
  readonly onChange: () => void;
}

/** The servers that jobs can go to: asked again and again how they are. */
export class ServerPool {
  readonly #entries: readonly Entry[];
  readonly #options: ServerPoolOptions;
  readonly #closing = new AbortController();

  constructor(options: ServerPoolOptions) {
    this.#options = options;
    this.#entries = options.addresses.map((address) => ({
      address,
      client: connect(address, options.token === undefined ? {} : { token: options.token }),
      lanes: [],
      running: 0,
      nextPoll: new AbortController(),
    }));
    for (const entry of this.#entries) void this.#watch(entry);
  }

  /** The server that has fewest jobs; undefined where none has the model. */
  leastBusy(lane: string): PoolServer | undefined {
    const able = this.#entries.filter((entry) => entry.lanes.includes(lane));
    return able.reduce<Entry | undefined>(
      (best, entry) => (best && best.running <= entry.running ? best : entry),
      undefined,
    );
  }

  /** The server of that address, if it can take jobs of the lane now: it may have the job already. */
  at(address: string, lane: string): PoolServer | undefined {
    return this.#entries.find((entry) => entry.address === address && entry.lanes.includes(lane));
  }

  /** Counts a job of a server until the returned function is called. */
  acquire({ address }: PoolServer): () => void {
    const entry = this.#entries.find((other) => other.address === address);
    if (entry === undefined) return () => undefined;
    entry.running += 1;
    return () => {
      entry.running -= 1;
    };
  }

  /** Tells that a server did not answer or takes no jobs: it gets none until it says otherwise. */
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
      const lanes = await this.#fetchLanes(entry);
      this.#setLanes(entry, lanes);
      if (lanes.length > 0) backoff.reset();
      entry.nextPoll = new AbortController();
      const signal = AbortSignal.any([entry.nextPoll.signal, this.#closing.signal]);
      await sleep(lanes.length > 0 ? POLL_MS : backoff.next(), undefined, { signal }).catch(() => undefined);
    }
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
