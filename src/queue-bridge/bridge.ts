import { randomInt, randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BridgeConfig } from '../config/bridge-config.js';
import { connectOptions } from '../config/client-config.js';
import { InferenceError } from '../errors.js';
import { contractJobTypes, type JobTypes } from '../job-types.js';
import type { Logger } from '../log.js';
import type { Traces } from '../observe/traces.js';
import { traceIdOf } from '../std/traceparent.js';
import type { AssetStore } from '../storage/asset-store.js';
import { callbackChannel } from './callback/callback-channel.js';
import { classifyPayload } from './classify-payload.js';
import { type BridgeObserver, bridgeObserver } from './observe/bridge-observer.js';
import { startClaim } from './observe/claim-span.js';
import { openSpool } from './open-spool.js';
import { Outbox, type OutboxOptions } from './outbox.js';
import { processJob } from './process-job.js';
import {
  type Delivery,
  type DueDelivery,
  type JobQueue,
  type LaneTurn,
  listsOf,
  type PendingPayload,
  type Poll,
  type ServerRun,
  type UsageDelivery,
} from './queue/job-queue.js';
import { ReapWindow } from './reap-window.js';
import { ServerPool } from './server-pool.js';
import { usageChannel } from './usage/usage-channel.js';

const MAX_DRAWN_SEED = 999_999_999;
/** Longest time between two polls of a queue that reports pushes. They find the jobs that other bridges left behind. */
const POLL_MS = 2000;
/** Time between two polls over REST while there is work. */
const BUSY_POLL_MS = 250;
/** Longest time that a stop waits for usage records. */
const USAGE_STOP_MS = 2000;
/** Time until the server of a stray run is asked again. */
const STRAY_RETRY_MS = 2000;
/** Time between two looks at whether the queue answers. */
const WATCH_MS = 500;
/** Delay after a failed poll. */
const FAILED_POLL_MS = 1000;

export interface BridgeOptions {
  readonly config: BridgeConfig;
  readonly queue: JobQueue;
  readonly storage: AssetStore;
  readonly log: Logger;
  /** True if its servers stop with it: then it cancels the jobs there that it releases. Omitted: the servers continue them. */
  readonly endsServer?: boolean;
  /** Job types that payloads may have. Omitted: the ten of the contract. */
  readonly jobTypes?: JobTypes;
  /** What measures the bridge. Omitted: nothing. */
  readonly observers?: readonly Partial<BridgeObserver>[];
  /** Omitted: nothing is traced. */
  readonly traces?: Traces | undefined;
}

export interface RunningBridge {
  /** Number of jobs in flight. */
  readonly running: number;
  /** Says why no job would be taken now; undefined if one would. @param lane undefined: any lane */
  notReady(lane?: string): string | undefined;
  /** Takes no more jobs, waits for those in flight for up to BRIDGE_DRAIN_MS, and releases the rest. */
  stop(): Promise<void>;
}

/** Starts a bridge: it runs the jobs of a queue on servers, stores their files and delivers their callbacks. */
export async function startBridge(options: BridgeOptions): Promise<RunningBridge> {
  return new Bridge(options, await openSpool(options.config.BRIDGE_SPOOL ?? tmpdir()));
}

const noJob: { readonly id?: string; readonly traceparent?: string | undefined } = {};

/** A receiver of an outbox. */
type To<D extends DueDelivery> = Pick<OutboxOptions<D>, 'channel' | 'token' | 'secret'> & {
  /** Undefined: there is none. */
  readonly url: string | undefined;
};

class Bridge implements RunningBridge {
  readonly #config: BridgeConfig;
  readonly #queue: JobQueue;
  readonly #storage: AssetStore;
  readonly #log: Logger;
  readonly #spool: string;
  readonly #endsServer: boolean;
  readonly #jobTypes: JobTypes;
  readonly #pool: ServerPool;
  readonly #outbox: Outbox<Delivery> | undefined;
  readonly #usage: Outbox<UsageDelivery> | undefined;
  readonly #reap: ReapWindow;
  readonly #observer: BridgeObserver;
  readonly #traces: Traces | undefined;
  /** Why the last poll of the queue failed. */
  #queueProblem: string | undefined = 'the queue was not polled yet';
  readonly #worker = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
  /** Aborted when no more jobs are taken. */
  readonly #stopping = new AbortController();
  /** Aborted when the jobs in flight are released. */
  readonly #draining = new AbortController();
  readonly #jobs = new Map<Promise<void>, string>();
  /** Stray runs that are being cancelled. */
  readonly #strays = new Map<string, Promise<void>>();
  readonly #loop: Promise<void>;
  readonly #watch: NodeJS.Timeout;
  #isQueueAway = false;
  #wake = new AbortController();
  #idleMs = BUSY_POLL_MS;

  constructor(options: BridgeOptions, spool: string) {
    const { config, queue, storage, log, endsServer = false, jobTypes = contractJobTypes } = options;
    this.#endsServer = endsServer;
    this.#jobTypes = jobTypes;
    this.#config = config;
    this.#queue = queue;
    this.#storage = storage;
    this.#log = log;
    this.#spool = spool;
    this.#reap = new ReapWindow(config.BRIDGE_LEASE_MS);
    this.#observer = bridgeObserver(options.observers ?? [], log);
    this.#traces = options.traces;
    const wake = () => this.#wake.abort();
    this.#pool = new ServerPool({
      addresses: config.DARKROOM_SERVER,
      connection: connectOptions(config),
      log,
      onChange: wake,
    });
    const outboxOf = <D extends DueDelivery>({ url, ...to }: To<D>) =>
      url === undefined
        ? undefined
        : new Outbox<D>({
            ...to,
            url,
            log,
            observer: this.#observer,
            traces: this.#traces,
            timeoutMs: config.CALLBACK_TIMEOUT_MS,
            retryMs: config.CALLBACK_RETRY_MS,
            retryMaxMs: config.CALLBACK_RETRY_MAX_MS,
            maxAgeMs: config.CALLBACK_MAX_AGE_MS,
            concurrency: config.CALLBACK_CONCURRENCY,
            onSettled: wake,
          });
    const { CALLBACK_URL, CALLBACK_TOKEN, CALLBACK_SECRET, USAGE_URL, USAGE_TOKEN, USAGE_SECRET } = config;
    this.#outbox = outboxOf({
      channel: callbackChannel(queue),
      url: CALLBACK_URL,
      token: CALLBACK_TOKEN,
      secret: CALLBACK_SECRET,
    });
    this.#usage = outboxOf({ channel: usageChannel(queue), url: USAGE_URL, token: USAGE_TOKEN, secret: USAGE_SECRET });
    this.#loop = this.#run();
    this.#watch = setInterval(() => this.#watchQueue(), WATCH_MS).unref();
  }

  get running(): number {
    return this.#jobs.size;
  }

  notReady(lane?: string): string | undefined {
    if (this.#stopping.signal.aborted) return 'the bridge is stopping and takes no more jobs';
    const queueProblem = this.#queue.problem ?? this.#queueProblem;
    if (queueProblem !== undefined) return queueProblem;
    const names = this.#config.lanes.map(({ name }) => name);
    if (lane !== undefined && !names.includes(lane)) {
      return `lane "${lane.slice(0, 64)}" is none of this bridge's; it has ${names.join(', ')}`;
    }
    const asked = lane === undefined ? names : [lane];
    if (asked.some((name) => this.#pool.leastBusy(name) !== undefined)) return undefined;
    return `no server of DARKROOM_SERVER serves ${asked.join(' or ')} now`;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake.abort();
    await this.#loop;
    const timer = setTimeout(() => this.#draining.abort(), this.#config.BRIDGE_DRAIN_MS);
    await Promise.all(this.#jobs.keys());
    clearTimeout(timer);
    // Jobs that ended just now have a callback and a usage record due.
    const deliverLast = async (outbox: Pick<Outbox<Delivery>, 'whenIdle' | 'deliverDue'> | undefined) => {
      await outbox?.whenIdle();
      await outbox?.deliverDue().catch(() => undefined);
      await outbox?.whenIdle();
    };
    // A usage record stays in the queue if its receiver does not answer; the stop does not wait for it.
    const patience = sleep(USAGE_STOP_MS, undefined, { ref: false });
    await Promise.all([deliverLast(this.#outbox), Promise.race([deliverLast(this.#usage), patience])]);
    await Promise.all(this.#strays.values());
    clearInterval(this.#watch);
    this.#pool.close();
    await rm(this.#spool, { recursive: true, force: true });
  }

  /** Logs when the queue stops answering and when it answers again. */
  #watchQueue(): void {
    const { problem } = this.#queue;
    const isAway = problem !== undefined;
    if (isAway === this.#isQueueAway) return;
    this.#isQueueAway = isAway;
    if (isAway) this.#log.warn({ problem }, 'the queue does not answer: running jobs go on, and no others start');
    else this.#log.warn('the queue answers again');
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      this.#wake = new AbortController();
      try {
        const poll = await this.#queue.poll(this.#reap.reaping);
        this.#queueProblem = undefined;
        this.#reap.answered(poll.now);
        if (await this.#doWork(poll)) this.#idleMs = BUSY_POLL_MS;
        else await this.#waitForWork(poll.nextDueMs);
      } catch (error) {
        this.#log.error({ err: error }, 'the queue failed');
        this.#queueProblem = `the queue failed: ${InferenceError.from(error).message}`;
        await sleep(FAILED_POLL_MS, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
      }
    }
  }

  /** Does the work that a poll found. @returns true if there was any */
  async #doWork({ payloads, waiting, dueDeliveries, dueUsage, strayRuns }: Poll): Promise<boolean> {
    for (const run of strayRuns) this.#cancelStray(run);
    if (payloads.length > 0) await this.#admit(payloads);
    const started = await this.#claim(payloads.length > 0 ? this.#config.lanes.map(({ name }) => name) : waiting);
    const { room = 0 } = this.#outbox ?? {};
    // Each start makes a callback due.
    const delivered = room > 0 && dueDeliveries + started > 0 ? await this.#outbox?.deliverDue() : 0;
    const recorded =
      dueUsage > 0 && this.#usage !== undefined && this.#usage.room > 0 ? await this.#usage.deliverDue() : 0;
    return payloads.length > 0 || started > 0 || (delivered ?? 0) + recorded > 0;
  }

  /**
   * Cancels a run of a job that ended while it waited, if its server is one of this bridge's. One that does not answer is asked again.
   * Another bridge may ask it, too: a second cancel changes nothing.
   */
  #cancelStray(run: ServerRun): void {
    const key = `${run.server} ${run.jobId}`;
    if (this.#strays.has(key) || !this.#pool.has(run.server)) return;
    const cancel = async () => {
      if (await this.#pool.cancel(run)) await this.#queue.forgetStrays([run]);
      else await sleep(STRAY_RETRY_MS, undefined, { signal: this.#stopping.signal, ref: false });
    };
    const done = cancel()
      .catch((error: unknown) => {
        if (!this.#stopping.signal.aborted) this.#log.warn({ err: error, ...run }, 'stray run not forgotten');
      })
      .finally(() => this.#strays.delete(key));
    this.#strays.set(key, done);
  }

  async #admit(payloads: readonly PendingPayload[]): Promise<void> {
    const options = { lanes: this.#config.lanes, jobTypes: this.#jobTypes };
    for (const queue of listsOf(this.#config.lanes)) {
      const entries = payloads
        .filter((payload) => payload.queue === queue)
        .map((payload) => [payload.sha1, classifyPayload(payload, options)] as const);
      const admitted = await this.#queue.admit(queue, entries);
      for (const [i, result] of admitted.entries()) {
        const admission = entries[i]?.[1];
        this.#observer.payloadAdmitted(result, admission?.kind === 'rejected' ? undefined : admission?.type);
        const { id: jobId, traceparent } = admission === undefined || admission.kind === 'rejected' ? noJob : admission;
        const traceId = traceIdOf(traceparent);
        const problem = admission === undefined || admission.kind === 'job' ? undefined : admission.problem;
        const facts = {
          queue,
          result,
          ...(jobId && { jobId }),
          ...(problem && { problem }),
          ...(traceId && { traceId }),
        };
        if (result === 'refused' || result === 'rejected') this.#log.warn(facts, 'payload rejected');
        else if (result !== 'moved') this.#log.debug(facts, 'payload admitted');
      }
    }
  }

  /** Claims jobs of these lanes for the free slots. @returns the number of jobs */
  async #claim(waiting: readonly string[]): Promise<number> {
    let started = 0;
    for (; !this.#stopping.signal.aborted; started += 1) {
      const open = this.#openLanes(waiting);
      if (open.length === 0) break;
      const span = startClaim(this.#traces);
      const lease = await this.#queue.claim({
        token: randomUUID(),
        traceparent: span?.traceparent,
        worker: this.#worker,
        leaseMs: this.#config.BRIDGE_LEASE_MS,
        seed: randomInt(1, MAX_DRAWN_SEED + 1),
        lanes: open,
      });
      if (lease === undefined) break;
      const { lane } = lease;
      span?.end(lease);
      this.#observer.jobClaimed(lease);
      const job = processJob(lease, {
        queue: this.#queue,
        storage: this.#storage,
        pool: this.#pool,
        log: this.#log,
        spool: this.#spool,
        leaseMs: this.#config.BRIDGE_LEASE_MS,
        progressMs: this.#config.BRIDGE_PROGRESS_MS,
        attempts: this.#config.BRIDGE_ATTEMPTS,
        retryMs: this.#config.BRIDGE_RETRY_MS,
        retryMaxMs: this.#config.BRIDGE_RETRY_MAX_MS,
        drain: this.#draining.signal,
        endsServer: this.#endsServer,
        jobTypes: this.#jobTypes,
        worker: this.#worker,
        sendsUsage: this.#usage !== undefined,
        observer: this.#observer,
        traces: this.#traces,
      }).finally(() => {
        this.#jobs.delete(job);
        this.#wake.abort();
      });
      this.#jobs.set(job, lane);
    }
    return started;
  }

  /**
   * Lanes that have a waiting job, a free slot and a server. Where none takes jobs, those that drain may have some already: a bridge that
   * has just started continues them there.
   */
  #openLanes(waiting: readonly string[]): readonly LaneTurn[] {
    const { BRIDGE_SLOTS, lanes } = this.#config;
    if (this.#jobs.size >= BRIDGE_SLOTS) return [];
    const inFlight = (name: string) => [...this.#jobs.values()].filter((lane) => lane === name).length;
    return lanes.flatMap(({ name, weight, slots }) => {
      if (!waiting.includes(name) || inFlight(name) >= slots) return [];
      const server = this.#pool.leastBusy(name);
      const servers = server === undefined ? this.#pool.draining(name) : [server];
      return servers.map(({ address }) => ({ lane: name, weight, server: address, keeps: server === undefined }));
    });
  }

  /** Waits until there may be work. */
  async #waitForWork(nextDueMs: number | undefined): Promise<void> {
    const longest = this.#queue.kind === 'upstash' ? this.#idleMs : POLL_MS;
    this.#idleMs = Math.min(this.#idleMs * 2, this.#config.BRIDGE_IDLE_POLL_MS);
    // Callbacks that are due now but were not taken wait for a free delivery.
    const dueMs = nextDueMs || longest;
    const wake = this.#wake;
    const waitMs = Math.min(longest, dueMs);
    this.#reap.waits(waitMs);
    const timer = setTimeout(() => wake.abort(), waitMs);
    await this.#queue.waitForPush(wake.signal);
    clearTimeout(timer);
  }
}
