import { setTimeout as sleep } from 'node:timers/promises';
import { type ConnectOptions, cancelJob, connect, type DarkroomClient, serverStatus } from '../client/client.js';
import { InferenceError } from '../errors.js';
import { type Model, ModelState } from '../gen/darkroom/v1/model_service.js';
import type { Logger } from '../log.js';
import { createBackoff } from '../std/backoff.js';
import type { ServerRun } from './queue/job-queue.js';

/** Time between two polls of a server that answers: it may drain or lose a model. */
const POLL_MS = 5000;
const POLL_TIMEOUT_MS = 5000;
/** Time limit for cancelling a job on a server. */
const CANCEL_TIMEOUT_MS = 5000;

export interface PoolServer {
  readonly address: string;
  readonly client: DarkroomClient;
}

interface Entry extends PoolServer {
  /** Families of its models, sorted; none while it does not answer. */
  families: readonly string[];
  /** Those of them that are loaded. */
  ready: readonly string[];
  /** It runs what it has to the end, and takes no more. */
  isDraining: boolean;
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
      ...GONE,
      running: 0,
      nextPoll: new AbortController(),
      firstPoll: Promise.resolve(),
    }));
    for (const entry of this.#entries) {
      entry.firstPoll = this.#poll(entry);
      void entry.firstPoll.then(() => this.#watch(entry));
    }
  }

  /**
   * The server of a lane with the fewest jobs of this bridge; undefined if no server has the lane. One that loads its model, perhaps
   * again and again, gets a job only where none has it loaded.
   */
  leastBusy(lane: string): PoolServer | undefined {
    const able = this.#entries.filter((entry) => lanesOf(entry).includes(lane));
    const ready = able.filter((entry) => entry.ready.includes(lane));
    return (ready.length > 0 ? ready : able).reduce<Entry | undefined>(
      (best, entry) => (best && best.running <= entry.running ? best : entry),
      undefined,
    );
  }

  /**
   * The server at an address, if it answers and has models of the lane, so that it may have a job of it: also one that drains, which
   * ends its jobs. One that was not asked yet, or did not answer the last time, is asked now: else a job that it still has would be
   * run on another server as well.
   */
  async at(address: string, lane: string): Promise<PoolServer | undefined> {
    const entry = this.#entries.find((other) => other.address === address);
    if (entry === undefined) return undefined;
    await entry.firstPoll;
    if (!entry.families.includes(lane)) await this.#poll(entry);
    return entry.families.includes(lane) ? entry : undefined;
  }

  /** Servers that have models of the lane and drain: they take no jobs, but end those that they have. */
  draining(lane: string): readonly PoolServer[] {
    return this.#entries.filter(({ families, isDraining }) => isDraining && families.includes(lane));
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
    this.#set(entry, GONE);
    entry.nextPoll.abort();
  }

  has(address: string): boolean {
    return this.#entries.some((entry) => entry.address === address);
  }

  /**
   * Cancels a run on the server that the journal records, or on every server if none has that address. A server that is gone, or does
   * not have the job any more, has nothing to cancel.
   * @returns true if each of them answered that the run is over, or that it has none
   */
  async cancel({ server, jobId }: ServerRun): Promise<boolean> {
    const its = this.#entries.filter(({ address }) => address === server);
    const answers = await Promise.all(
      (its.length > 0 ? its : this.#entries).map(({ client }) =>
        cancelJob(client, jobId, CANCEL_TIMEOUT_MS).then(
          () => true,
          (error: unknown) => InferenceError.from(error).reason === 'JOB_NOT_FOUND',
        ),
      ),
    );
    return answers.every((isOver) => isOver);
  }

  close(): void {
    this.#closing.abort();
    for (const { client } of this.#entries) client.close();
  }

  async #watch(entry: Entry): Promise<void> {
    const backoff = createBackoff({ initial: 100, max: POLL_MS });
    while (!this.#closing.signal.aborted) {
      if (lanesOf(entry).length > 0) backoff.reset();
      entry.nextPoll = new AbortController();
      const signal = AbortSignal.any([entry.nextPoll.signal, this.#closing.signal]);
      await sleep(lanesOf(entry).length > 0 ? POLL_MS : backoff.next(), undefined, { signal }).catch(() => undefined);
      if (!this.#closing.signal.aborted) await this.#poll(entry);
    }
  }

  async #poll(entry: Entry): Promise<void> {
    this.#set(entry, await this.#fetch(entry));
  }

  async #fetch({ client }: Entry): Promise<Found> {
    try {
      const { draining: isDraining, models } = await serverStatus(client, POLL_TIMEOUT_MS);
      const able = models.filter(({ state }) => state !== ModelState.MODEL_STATE_FAILED);
      const ready = able.filter(({ state }) => READY.includes(state));
      return { families: familiesOf(able), ready: familiesOf(ready), isDraining };
    } catch {
      return GONE;
    }
  }

  #set(entry: Entry, found: Found): void {
    const before = lanesOf(entry);
    Object.assign(entry, found);
    const lanes = lanesOf(entry);
    if (lanes.join() === before.join()) return;
    this.#options.log.info({ server: entry.address, lanes }, 'server changed');
    this.#options.onChange();
  }
}

type Found = Pick<Entry, 'families' | 'ready' | 'isDraining'>;

const GONE: Found = { families: [], ready: [], isDraining: false };

const READY: readonly ModelState[] = [ModelState.MODEL_STATE_READY, ModelState.MODEL_STATE_BUSY];

function familiesOf(models: readonly Pick<Model, 'family'>[]): readonly string[] {
  return [...new Set(models.map(({ family }) => family))].sort();
}

/** The lanes that a server takes jobs of now. */
function lanesOf({ families, isDraining }: Entry): readonly string[] {
  return isDraining ? [] : families;
}
