import {
  CANCEL_KEEP_MS,
  MAX_BYTES_PER_POLL,
  MAX_PAYLOAD_BYTES,
  MAX_PAYLOADS_PER_POLL,
  MAX_READ_BYTES,
  MAX_REJECTED,
  PROGRESS_MS,
} from '../limits.js';
import type {
  Admission,
  Admitted,
  Cancelled,
  ClaimRequest,
  DeadLetters,
  Delivery,
  Finish,
  Heartbeat,
  Held,
  JobQueue,
  JobQueueOptions,
  JobState,
  JournalFields,
  Lease,
  Poll,
  QueueCounts,
  Release,
  Replayed,
  Settlement,
} from './job-queue.js';
import { deliveryFrom, leaseFrom, pairs } from './journal.js';
import type { ScriptRunner } from './script-runner.js';
import { cancelScript, countsScript, deadScript, listScript, replayScript, showScript } from './scripts/control.js';
import { admitScript, pollScript } from './scripts/intake.js';
import { claimScript, finishScript, heartbeatScript, recordScript, releaseScript } from './scripts/leases.js';
import { settleScript, takeDeliveriesScript } from './scripts/outbox.js';
import type { Script } from './scripts/script.js';

export interface ScriptQueueOptions extends JobQueueOptions {
  /** Of all keys but the producers' lists, for example `darkroom:`. */
  readonly prefix: string;
}

/** A job queue in Redis: every step is one script. */
export class ScriptQueue implements JobQueue {
  readonly kind: JobQueue['kind'];
  readonly #runner: ScriptRunner;
  readonly #options: ScriptQueueOptions;
  readonly #callsBack: string;
  readonly #retentionMs: string;
  readonly #publishes: string;

  constructor(runner: ScriptRunner, options: ScriptQueueOptions) {
    this.kind = runner.kind;
    this.#runner = runner;
    this.#options = options;
    this.#callsBack = flag(options.callsBack);
    this.#retentionMs = String(options.retentionMs);
    this.#publishes = flag(runner.publishes);
  }

  push(queue: string, payload: string): Promise<void> {
    return this.#runner.push(queue, payload);
  }

  async poll(): Promise<Poll> {
    const [waiting, due, nextDueMs, payloads] = await this.#run<[Poll['waiting'], number, number, PayloadRow[]]>(
      pollScript,
      String(MAX_PAYLOADS_PER_POLL),
      String(MAX_BYTES_PER_POLL),
      String(MAX_READ_BYTES),
      ...this.#options.queues,
    );
    return {
      waiting,
      dueDeliveries: due,
      nextDueMs: nextDueMs < 0 ? undefined : nextDueMs,
      payloads: payloads.map(([queue, sha1, bytes, raw]) => ({ queue, sha1, bytes, raw })),
    };
  }

  async admit(queue: string, entries: readonly (readonly [string, Admission])[]): Promise<readonly Admitted[]> {
    if (entries.length === 0) return [];
    const done = await this.#run<Admitted[]>(
      admitScript,
      queue,
      this.#callsBack,
      this.#retentionMs,
      String(MAX_PAYLOAD_BYTES),
      String(MAX_REJECTED),
      ...entries.flatMap(([sha1, admission]) => [sha1, ...admissionArguments(admission)]),
    );
    return entries.map((_, i) => done[i] ?? 'moved');
  }

  async claim({ token, worker, leaseMs, seed, lanes }: ClaimRequest): Promise<Lease | undefined> {
    const claimed = await this.#run<[string, number, string[]] | null>(
      claimScript,
      token,
      worker,
      String(leaseMs),
      String(seed),
      this.#callsBack,
      ...lanes.flatMap(({ lane, weight, server }) => [lane, String(weight), server]),
    );
    if (claimed === null) return undefined;
    const [, isCancelled, fields] = claimed;
    return leaseFrom(pairs(fields), isCancelled === 1);
  }

  heartbeat({ id, token, leaseMs, progress = '' }: Heartbeat): Promise<Held | 'cancelled'> {
    return this.#run(heartbeatScript, id, token, String(leaseMs), progress, String(PROGRESS_MS), this.#publishes);
  }

  record(id: string, token: string, fields: JournalFields): Promise<Held> {
    return this.#run(recordScript, id, token, ...Object.entries(fields).flat());
  }

  release({ id, token, isSpent, delayMs, keepsServer, reason }: Release): Promise<Held> {
    return this.#run(releaseScript, id, token, flag(isSpent), String(Math.round(delayMs)), flag(keepsServer), reason);
  }

  finish({ id, token, state, callback, progress }: Finish): Promise<Held> {
    return this.#run(
      finishScript,
      id,
      token,
      state,
      callback,
      this.#callsBack,
      this.#retentionMs,
      progress,
      String(PROGRESS_MS),
      this.#publishes,
    );
  }

  async takeDeliveries(token: string, most: number, leaseMs: number): Promise<readonly Delivery[]> {
    const taken = await this.#run<string[][]>(takeDeliveriesScript, token, String(most), String(leaseMs));
    return taken.map((row) => deliveryFrom(token, row));
  }

  settle(id: string, token: string, settlement: Settlement): Promise<Held> {
    const delayMs = settlement.kind === 'retry' ? Math.round(settlement.delayMs) : 0;
    const reason = settlement.kind === 'delivered' ? '' : settlement.reason;
    return this.#run(settleScript, id, token, settlement.kind, String(delayMs), reason, this.#retentionMs);
  }

  waitForPush(signal: AbortSignal): Promise<void> {
    return this.#runner.waitForPush(this.#options.queues, signal);
  }

  async list(most: number, state?: JobState): Promise<readonly JournalFields[]> {
    return (await this.#run<string[][]>(listScript, String(most), state ?? '')).map(pairs);
  }

  async show(id: string): Promise<JournalFields | undefined> {
    const fields = await this.#run<string[]>(showScript, id);
    return fields.length === 0 ? undefined : pairs(fields);
  }

  async counts(): Promise<QueueCounts> {
    const [pushed = 0, waiting = 0, delayed = 0, leased = 0, callbacks = 0, dead = 0, deadCallbacks = 0, rejected = 0] =
      await this.#run<number[]>(countsScript, ...this.#options.queues);
    return { pushed, waiting, delayed, leased, callbacks, dead, deadCallbacks, rejected };
  }

  async deadLetters(most: number): Promise<DeadLetters> {
    const [jobs, callbacks, rejected] = await this.#run<[string[], string[], string[]]>(deadScript, String(most));
    return { jobs, callbacks, rejected };
  }

  cancel(id: string, callback: string): Promise<Cancelled> {
    return this.#run(cancelScript, id, String(CANCEL_KEEP_MS), this.#retentionMs, callback);
  }

  replay(id: string, callbackOnly: boolean): Promise<Replayed> {
    return this.#run(replayScript, id, flag(callbackOnly));
  }

  close(): Promise<void> {
    return this.#runner.close();
  }

  #run<T>(script: Script, ...args: readonly string[]): Promise<T> {
    return this.#runner.run(script, [this.#options.prefix, ...args]) as Promise<T>;
  }
}

type PayloadRow = [queue: string, sha1: string, bytes: number, raw: string];

function flag(value: boolean): string {
  return value ? '1' : '0';
}

/** kind, id, user, lane, type, text */
function admissionArguments(admission: Admission): readonly string[] {
  switch (admission.kind) {
    case 'job':
      return ['job', admission.id, admission.user, admission.lane, admission.type, ''];
    case 'refused':
      return ['refused', admission.id, admission.user, 'sdxl', admission.type, admission.callback];
    case 'rejected':
      return ['rejected', '', '', '', '', admission.record];
  }
}
