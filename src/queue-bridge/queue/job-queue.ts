import type { Lane } from '../../config/bridge-lanes.js';
import type { JournalFields, RecordedFields } from './journal-fields.js';

/** State of a job. The last four are final. */
export type JobState = 'waiting' | 'delayed' | 'leased' | 'completed' | 'failed' | 'dead' | 'cancelled';

export const endStates: readonly JobState[] = ['completed', 'failed', 'dead', 'cancelled'];

/** A payload at the tail of a producers' list that is not admitted yet. */
export interface PendingPayload {
  readonly queue: string;
  /** Identifies the payload when it is admitted. */
  readonly sha1: string;
  /** Size of the whole payload. */
  readonly bytes: number;
  /** The payload, or its beginning if it is longer than the bridge reads. */
  readonly raw: string;
}

/** A payload after it was read. */
export type Admission =
  | {
      readonly kind: 'job';
      readonly id: string;
      readonly user: string;
      readonly lane: string;
      readonly type: string;
      /** Of the payload. Omitted: it has none. */
      readonly traceparent?: string | undefined;
    }
  /** It has an id but cannot run. It ends at once, with this callback. */
  | {
      readonly kind: 'refused';
      readonly id: string;
      readonly user: string;
      /** Lane that it would run in if it were replayed. */
      readonly lane: string;
      readonly type: string;
      readonly callback: string;
      readonly problem: string;
      readonly traceparent?: string | undefined;
    }
  /** It has no usable id. The list of rejected payloads keeps it with the reason. */
  | { readonly kind: 'rejected'; readonly record: string; readonly problem: string };

/** `moved`: another bridge took the payload first. `duplicate`: the id is known; an ended job repeats its callback. */
export type Admitted = 'admitted' | 'duplicate' | 'refused' | 'rejected' | 'moved';

/** When a poll may requeue jobs of expired leases, in ms of the store's clock. */
export interface Reaping {
  readonly from: number;
  readonly until: number;
  /** A store that started less than this time ago does not requeue them: their workers could not renew while it was away. */
  readonly graceMs: number;
}

/** Leases end as they expire. */
export const AT_ONCE: Reaping = { from: 0, until: Number.MAX_SAFE_INTEGER, graceMs: 0 };

export interface Poll {
  /** Time of the store, in ms since 1970. */
  readonly now: number;
  /** Payloads at the tails of the producers' lists, in the order in which they are admitted. */
  readonly payloads: readonly PendingPayload[];
  /** Lanes of this queue in which a job waits, in their order. */
  readonly waiting: readonly string[];
  /** Number of callbacks that are due. */
  readonly dueDeliveries: number;
  /** Number of usage records that are due. */
  readonly dueUsage: number;
  /**
   * Time until a lease expires, a delayed job or a callback is due, or the next usage record becomes due; undefined if there is
   * none.
   */
  readonly nextDueMs: number | undefined;
  /** Runs of jobs that were cancelled while they waited for a bridge: their servers may still render them. */
  readonly strayRuns: readonly ServerRun[];
}

/** A job as a server knows it. */
export interface ServerRun {
  /** Address of the server, by the journal. */
  readonly server: string;
  /** Id of the job on the server. */
  readonly jobId: string;
}

/** Id of a job on the servers: each run of a replayed job is a new job there. */
export function serverJobIdOf({ id, run, serverJob }: Pick<Lease, 'id' | 'run' | 'serverJob'>): string {
  return serverJob ?? (run === 1 ? id : `${id}:${run}`);
}

export interface LaneTurn {
  readonly lane: string;
  /** Share of the lane while several lanes have jobs. */
  readonly weight: number;
  /** Server for its job, if no server has the job yet. */
  readonly server: string;
  /** The server takes no jobs: only one that it has already is claimed. */
  readonly keeps: boolean;
}

export interface ClaimRequest {
  /** Chosen by the caller. A second claim with the same token gets the same job. */
  readonly token: string;
  readonly worker: string;
  readonly leaseMs: number;
  /** Seed for the job if its journal has none. */
  readonly seed: number;
  /** Trace of the job if its journal has none. Omitted: it stays without. */
  readonly traceparent?: string | undefined;
  readonly lanes: readonly LaneTurn[];
}

/** A job that one worker holds until a deadline. Every write carries the token. */
export interface Lease {
  readonly id: string;
  readonly token: string;
  readonly lane: string;
  /** Job type. */
  readonly type: string;
  readonly user: string;
  /** Trace that the job belongs to. */
  readonly traceparent: string | undefined;
  readonly payload: string;
  /** Attempts of this run that count, this one included. */
  readonly attempts: number;
  /** 1, and 1 more for each replay. */
  readonly run: number;
  readonly seed: number;
  /** Address of the server that has the job, by the journal. */
  readonly server: string;
  /** Id of the job on the servers, if it is not its own. */
  readonly serverJob: string | undefined;
  /** JSON of the stage `generated`, if the job reached it. */
  readonly generated: string | undefined;
  /** JSON of each stored file, by its index. */
  readonly uploads: ReadonlyMap<number, string>;
  /** Reason why the last attempt ended. */
  readonly lastError: string | undefined;
  readonly isCancelled: boolean;
}

export interface Heartbeat {
  readonly id: string;
  readonly token: string;
  readonly leaseMs: number;
  /** JSON for frontends. Omitted: the progress stays as it is. */
  readonly progress?: string;
}

/** `lost`: another worker has the lease, or none. */
export type Held = 'held' | 'lost';

export interface Release {
  readonly id: string;
  readonly token: string;
  /** True if the attempt counts. It does not if no server accepted the job. */
  readonly isSpent: boolean;
  /** Time until the job may be claimed. 0: now, at its old place. */
  readonly delayMs: number;
  /** True if the next attempt should go to the same server, which may have the job. */
  readonly keepsServer: boolean;
  readonly reason: string;
}

export interface Finish {
  readonly id: string;
  readonly token: string;
  readonly state: Extract<JobState, 'completed' | 'failed' | 'dead' | 'cancelled'>;
  /** Body of the terminal callback. */
  readonly callback: string;
  /** Last progress, JSON. */
  readonly progress: string;
  /** Body of the usage record. Omitted: none is sent. */
  readonly usage?: string | undefined;
  /** False if this claim began no attempt: it is not counted. Omitted: it counts. */
  readonly isSpent?: boolean;
}

export type CallbackKind = 'processing' | 'terminal';

/** What one worker may deliver until a deadline. */
export interface DueDelivery {
  /** Id of the job. */
  readonly id: string;
  readonly token: string;
  readonly run: number;
  /** Failed attempts. */
  readonly attempts: number;
  /** Time since it was first due. */
  readonly ageMs: number;
  /** Trace that the job belongs to. */
  readonly traceparent: string | undefined;
}

export interface UsageDelivery extends DueDelivery {
  readonly body: string;
}

export interface Delivery extends DueDelivery {
  readonly kind: CallbackKind;
  readonly type: string;
  readonly user: string;
  /** Body of a terminal callback; empty for `processing`. */
  readonly callback: string;
  /** Time since the job came. */
  readonly totalMs: number;
}

export type Settlement =
  | { readonly kind: 'delivered' }
  | { readonly kind: 'retry'; readonly delayMs: number; readonly reason: string }
  /** It is given up. A terminal callback and a usage record go to the lists of dead ones. */
  | { readonly kind: 'dead'; readonly reason: string };

export interface QueueCounts {
  /** Number of payloads in the producers' lists. */
  readonly pushed: number;
  readonly waiting: number;
  readonly delayed: number;
  readonly leased: number;
  readonly callbacks: number;
  readonly dead: number;
  readonly deadCallbacks: number;
  readonly rejected: number;
  /** Usage records that are not delivered. */
  readonly usage: number;
  readonly deadUsage: number;
}

export interface QueueMeasurement {
  readonly counts: QueueCounts;
  /** Time since when the oldest callback is due; undefined if there is none. */
  readonly oldestCallbackMs: number | undefined;
  readonly oldestUsageMs: number | undefined;
}

export interface DeadLetters {
  /** Ids of jobs that used up their attempts, oldest first. */
  readonly jobs: readonly string[];
  /** Ids of jobs whose terminal callback was given up. */
  readonly callbacks: readonly string[];
  /** JSON records of payloads without a usable id, newest first. */
  readonly rejected: readonly string[];
  /** Usage records that were given up, as `<id>:<run>`. */
  readonly usage: readonly string[];
}

/** Result of `jobs cancel`. `noted`: there is no such job yet; it ends when it comes. `asked`: its worker ends it. */
export type Cancelled = 'cancelled' | 'asked' | 'noted' | 'ended';

/** Commands that a store refuses, with its own words; none: empty. */
export interface StoreProblems {
  /** Without writes no job can be claimed. */
  readonly write?: string;
  /** Without publishing, frontends do not see the progress. */
  readonly publish?: string;
}

/** Result of `jobs replay`. */
export type Replayed = 'runs' | 'calls back' | 'unknown' | 'not ended';

/** How many jobs of a user wait. */
export interface UserLine {
  readonly user: string;
  readonly waiting: number;
}

export interface JobQueueOptions {
  /** Lanes whose producers' lists it reads. Jobs of other lanes are kept for bridges that have those. */
  readonly lanes: readonly Pick<Lane, 'name' | 'queue'>[];
  /** True if starts and ends are called back. */
  readonly callsBack: boolean;
  /** Time in ms that an ended job is kept. Until then its id does not run again. */
  readonly retentionMs: number;
  /** Called for every command to a store, with the name of its script. Omitted: they are not counted. */
  readonly onCommand?: ((name: string) => void) | undefined;
}

/** The producers' lists of lanes; lanes may share one. */
export function listsOf(lanes: JobQueueOptions['lanes']): readonly string[] {
  return [...new Set(lanes.map(({ queue }) => queue))];
}

/**
 * Jobs from payload to callback, in a store that outlives its users. Every method is one atomic step that is safe to repeat if
 * its answer was lost. It throws InferenceError UNREACHABLE when the store does not answer in time.
 */
export interface JobQueue {
  readonly kind: 'memory' | 'redis' | 'upstash';
  /** Says in a sentence that the store has not answered for some seconds; undefined if it answers. */
  readonly problem: string | undefined;
  /** Pushes a payload to the head of a list, as producers do. */
  push(queue: string, payload: string): Promise<void>;
  /**
   * Requeues jobs whose lease has expired or whose delay is over, and returns the work that waits. A lease that has expired still
   * belongs to its worker, which may renew it, until a poll requeues its job.
   * @param reaping omitted: expired leases end at once
   */
  poll(reaping?: Reaping): Promise<Poll>;
  /** Admits payloads from the tail of one list, in order, as long as they are still there. */
  admit(
    queue: string,
    entries: readonly (readonly [sha1: string, admission: Admission])[],
  ): Promise<readonly Admitted[]>;
  /** Leases the next job of the next user of the next lane; undefined if no job waits. */
  claim(request: ClaimRequest): Promise<Lease | undefined>;
  /** Renews a lease. @returns `lost` if it is not held any more, `cancelled` if the job is to be cancelled */
  heartbeat(heartbeat: Heartbeat): Promise<Held | 'cancelled'>;
  /** Writes fields of the journal. */
  record(id: string, token: string, fields: RecordedFields): Promise<Held>;
  /** Returns a job to the queue. */
  release(release: Release): Promise<Held>;
  /** Ends a job and puts its callback and its usage record into their outboxes. */
  finish(finish: Finish): Promise<Held>;
  /** Leases callbacks that are due. */
  takeDeliveries(token: string, most: number, leaseMs: number): Promise<readonly Delivery[]>;
  /** Records the result of a delivery. */
  settle(id: string, token: string, settlement: Settlement): Promise<Held>;
  /** Leases usage records that are due. */
  takeUsage(token: string, most: number, leaseMs: number): Promise<readonly UsageDelivery[]>;
  /** Records the result of the delivery of a usage record. */
  settleUsage(delivery: Pick<UsageDelivery, 'id' | 'run' | 'token'>, settlement: Settlement): Promise<Held>;
  /** Forgets stray runs that were cancelled on their servers. */
  forgetStrays(runs: readonly ServerRun[]): Promise<void>;
  /** Resolves when a payload may have been pushed, at the latest when the signal is aborted. */
  waitForPush(signal: AbortSignal): Promise<void>;
  /** Journals, newest first. */
  list(most: number, state?: JobState): Promise<readonly JournalFields[]>;
  show(id: string): Promise<JournalFields | undefined>;
  /** Tries what a bridge needs of its store. */
  check(): Promise<StoreProblems>;
  counts(): Promise<QueueCounts>;
  /** `counts`, and the ages of the oldest entries, in one command. */
  measure(): Promise<QueueMeasurement>;
  /** Waiting jobs of each user, most first. */
  lines(most: number): Promise<readonly UserLine[]>;
  deadLetters(most: number): Promise<DeadLetters>;
  /** Cancels a job. @param callback body of its terminal callback if it has not started */
  cancel(id: string, callback: string): Promise<Cancelled>;
  /** Repeats the callback of a completed job, and runs other ended jobs again unless `callbackOnly`. */
  replay(id: string, callbackOnly: boolean): Promise<Replayed>;
  close(): Promise<void>;
}
