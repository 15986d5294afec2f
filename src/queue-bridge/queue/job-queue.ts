import type { Lane } from '../../config/bridge-lanes.js';
import type { JournalFields, RecordedFields } from './journal-fields.js';

/** Where a job is. The last four are ends. */
export type JobState = 'waiting' | 'delayed' | 'leased' | 'completed' | 'failed' | 'dead' | 'cancelled';

export const endStates: readonly JobState[] = ['completed', 'failed', 'dead', 'cancelled'];

/** A payload at the tail of a producers' list, not taken yet. */
export interface PendingPayload {
  readonly queue: string;
  /** Names it when it is taken. */
  readonly sha1: string;
  /** Of the whole payload. */
  readonly bytes: number;
  /** The payload; its beginning where it is longer than the bridge reads. */
  readonly raw: string;
}

/** What a payload turned out to be. */
export type Admission =
  | { readonly kind: 'job'; readonly id: string; readonly user: string; readonly lane: string; readonly type: string }
  /** It has an id and cannot be run: it ends at once, with this callback. */
  | {
      readonly kind: 'refused';
      readonly id: string;
      readonly user: string;
      /** Lane that it would run in if it were replayed. */
      readonly lane: string;
      readonly type: string;
      readonly callback: string;
    }
  /** It has no usable id: it is kept in the list of rejected payloads, with the reason. */
  | { readonly kind: 'rejected'; readonly record: string };

/** `moved`: somebody else took the payload first. `duplicate`: the id is known; an ended job repeats its callback. */
export type Admitted = 'admitted' | 'duplicate' | 'refused' | 'rejected' | 'moved';

export interface Poll {
  /** At the tails of the producers' lists, in the order in which they are taken. */
  readonly payloads: readonly PendingPayload[];
  /** Those of the queue's lanes in which a job waits, in their order. */
  readonly waiting: readonly string[];
  /** Callbacks that are due. */
  readonly dueDeliveries: number;
  /** Until a lease ends, a delayed job or a callback is due; undefined where there is none. */
  readonly nextDueMs: number | undefined;
}

export interface LaneTurn {
  readonly lane: string;
  /** Share of the lane while several lanes have jobs. */
  readonly weight: number;
  /** Server that its job gets, if no server has it yet. */
  readonly server: string;
}

export interface ClaimRequest {
  /** Chosen by the caller; asking again with the same one gives the same job. */
  readonly token: string;
  readonly worker: string;
  readonly leaseMs: number;
  /** Seed that the job gets if it has none in its journal. */
  readonly seed: number;
  readonly lanes: readonly LaneTurn[];
}

/** A job that one worker holds until a deadline; every write names the token. */
export interface Lease {
  readonly id: string;
  readonly token: string;
  readonly lane: string;
  readonly payload: string;
  /** Starts so far, this one counted. */
  readonly attempts: number;
  /** 1, and one more for every replay. */
  readonly run: number;
  readonly seed: number;
  /** Server that has the job, by the journal. */
  readonly server: string;
  /** What the servers know it by, where that is not its own id. */
  readonly serverJob: string | undefined;
  /** JSON of what was generated, where that stage was reached. */
  readonly generated: string | undefined;
  /** JSON of every file that is stored, by its place in the job. */
  readonly uploads: ReadonlyMap<number, string>;
  /** Why the last attempt ended. */
  readonly lastError: string | undefined;
  readonly isCancelled: boolean;
}

export interface Heartbeat {
  readonly id: string;
  readonly token: string;
  readonly leaseMs: number;
  /** JSON for frontends; omitted: as it was. */
  readonly progress?: string;
}

/** `lost`: the lease belongs to somebody else, or to nobody. */
export type Held = 'held' | 'lost';

export interface Release {
  readonly id: string;
  readonly token: string;
  /** Whether the attempt counts; it does not where the job never started. */
  readonly isSpent: boolean;
  /** 0: at once, at its old place. */
  readonly delayMs: number;
  /** Whether the next attempt is best made on the same server: it may have the job. */
  readonly keepsServer: boolean;
  readonly reason: string;
}

export interface Finish {
  readonly id: string;
  readonly token: string;
  readonly state: Extract<JobState, 'completed' | 'failed' | 'dead' | 'cancelled'>;
  /** Body of the terminal callback. */
  readonly callback: string;
  /** Last word for those who follow the progress. */
  readonly progress: string;
}

export type CallbackKind = 'processing' | 'terminal';

/** A callback that one worker may deliver until a deadline. */
export interface Delivery {
  readonly id: string;
  readonly token: string;
  readonly kind: CallbackKind;
  readonly run: number;
  readonly type: string;
  readonly user: string;
  /** Body of a terminal one; empty for `processing`. */
  readonly callback: string;
  /** Tries that failed. */
  readonly attempts: number;
  /** Since it was first due. */
  readonly ageMs: number;
}

export type Settlement =
  | { readonly kind: 'delivered' }
  | { readonly kind: 'retry'; readonly delayMs: number; readonly reason: string }
  /** It is given up; a terminal one goes to the list of dead callbacks. */
  | { readonly kind: 'dead'; readonly reason: string };

export interface QueueCounts {
  /** Payloads in the producers' lists. */
  readonly pushed: number;
  readonly waiting: number;
  readonly delayed: number;
  readonly leased: number;
  readonly callbacks: number;
  readonly dead: number;
  readonly deadCallbacks: number;
  readonly rejected: number;
}

export interface DeadLetters {
  /** Ids of jobs that used up their attempts, oldest first. */
  readonly jobs: readonly string[];
  /** Ids of jobs whose terminal callback was given up. */
  readonly callbacks: readonly string[];
  /** JSON records of payloads without a usable id, newest first. */
  readonly rejected: readonly string[];
}

/** What `jobs cancel` did. `noted`: no such job yet; it ends when it comes. `asked`: its worker will see it. */
export type Cancelled = 'cancelled' | 'asked' | 'noted' | 'ended';

/** What `jobs replay` did. */
export type Replayed = 'runs' | 'calls back' | 'unknown' | 'not ended';

export interface JobQueueOptions {
  /** Lanes whose producers' lists it reads. Jobs of other lanes are kept for bridges that have those. */
  readonly lanes: readonly Pick<Lane, 'name' | 'queue'>[];
  /** Whether ends and starts are called back. */
  readonly callsBack: boolean;
  /** How long an ended job is remembered: the same id does not run again. */
  readonly retentionMs: number;
}

/** The producers' lists of lanes; lanes may share one. */
export function listsOf(lanes: JobQueueOptions['lanes']): readonly string[] {
  return [...new Set(lanes.map(({ queue }) => queue))];
}

/**
 * Jobs from payload to callback, in a store that outlives its users. Every method is one atomic step, safe to repeat when its
 * answer was lost, and throws InferenceError UNREACHABLE when the store does not answer for long.
 */
export interface JobQueue {
  readonly kind: 'memory' | 'redis' | 'upstash';
  /** Puts a payload where producers put it: at the head of a list. */
  push(queue: string, payload: string): Promise<void>;
  /** Gives back ended leases, wakes delayed jobs, and looks around. */
  poll(): Promise<Poll>;
  /** Takes payloads from the tail of one list, in order, as long as they are still there. */
  admit(
    queue: string,
    entries: readonly (readonly [sha1: string, admission: Admission])[],
  ): Promise<readonly Admitted[]>;
  /** The next job of the lane whose turn it is, of the user whose turn it is; undefined where none waits. */
  claim(request: ClaimRequest): Promise<Lease | undefined>;
  /** Renews a lease and says whether it is still held. */
  heartbeat(heartbeat: Heartbeat): Promise<Held | 'cancelled'>;
  /** Writes fields of the journal. */
  record(id: string, token: string, fields: RecordedFields): Promise<Held>;
  release(release: Release): Promise<Held>;
  /** Ends a job and puts its callback into the outbox. */
  finish(finish: Finish): Promise<Held>;
  takeDeliveries(token: string, most: number, leaseMs: number): Promise<readonly Delivery[]>;
  settle(id: string, token: string, settlement: Settlement): Promise<Held>;
  /** Resolves when something may have been pushed, at the latest when the signal says so. */
  waitForPush(signal: AbortSignal): Promise<void>;
  /** Newest first. */
  list(most: number, state?: JobState): Promise<readonly JournalFields[]>;
  show(id: string): Promise<JournalFields | undefined>;
  counts(): Promise<QueueCounts>;
  deadLetters(most: number): Promise<DeadLetters>;
  /** @param callback body of the terminal callback of a job that had not started */
  cancel(id: string, callback: string): Promise<Cancelled>;
  /** A completed job repeats its callback; one that ended otherwise runs again, unless `callbackOnly`. */
  replay(id: string, callbackOnly: boolean): Promise<Replayed>;
  close(): Promise<void>;
}
