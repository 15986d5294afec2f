import {
  CANCEL_KEEP_MS,
  MAX_BYTES_PER_POLL,
  MAX_PAYLOAD_BYTES,
  MAX_PAYLOADS_PER_POLL,
  MAX_READ_BYTES,
  MAX_REJECTED,
  PROGRESS_MS,
} from '../limits.js';
import { AnswerWatch } from './answer-watch.js';
import {
  type Admission,
  type Admitted,
  AT_ONCE,
  type Cancelled,
  type ClaimRequest,
  type DeadLetters,
  type Delivery,
  type Finish,
  type Heartbeat,
  type Held,
  type JobQueue,
  type JobQueueOptions,
  type JobState,
  type Lease,
  listsOf,
  type Poll,
  type QueueCounts,
  type QueueMeasurement,
  type Reaping,
  type Release,
  type Replayed,
  type ServerRun,
  type Settlement,
  type StoreProblems,
  type UsageDelivery,
  type UserLine,
} from './job-queue.js';
import { deliveryFrom, fieldsFrom, LEASE_EXPIRED, leaseFrom, usageDeliveryFrom } from './journal.js';
import type { JournalFields, RecordedFields } from './journal-fields.js';
import { type Script, scriptArguments } from './script.js';
import type { ScriptRunner } from './script-runner.js';
import { loadScripts, type ScriptArguments, type ScriptResults, type ScriptRow } from './scripts.js';
import type { ScriptName } from './signatures.js';

export interface ScriptQueueOptions extends JobQueueOptions {
  /** Prefix of all keys except the producers' lists, for example `darkroom:`. */
  readonly prefix: string;
}

/** A job queue in Redis: every step is one script. */
export class ScriptQueue implements JobQueue {
  readonly kind: JobQueue['kind'];
  readonly #runner: ScriptRunner;
  readonly #options: ScriptQueueOptions;
  readonly #answers: AnswerWatch;
  readonly #scripts: Readonly<Record<ScriptName, Script>> = loadScripts();

  readonly #lists: readonly string[];
  readonly #lanes: readonly { readonly lane: string }[];

  constructor(runner: ScriptRunner, options: ScriptQueueOptions) {
    this.kind = runner.kind;
    this.#runner = runner;
    this.#answers = new AnswerWatch(runner.store);
    this.#options = options;
    this.#lists = listsOf(options.lanes);
    this.#lanes = options.lanes.map(({ name }) => ({ lane: name }));
  }

  get problem(): string | undefined {
    return this.#answers.problem;
  }

  push(queue: string, payload: string): Promise<void> {
    this.#options.onCommand?.('push');
    return this.#answers.watch(() => this.#runner.push(queue, payload));
  }

  async poll({ from, until, graceMs }: Reaping = AT_ONCE): Promise<Poll> {
    const [waiting, dueDeliveries, nextDueMs, payloads, dueUsage, strays, now] = await this.#run(
      'poll',
      {
        maxPayloads: MAX_PAYLOADS_PER_POLL,
        maxBytes: MAX_BYTES_PER_POLL,
        maxReadBytes: MAX_READ_BYTES,
        expiry: LEASE_EXPIRED,
        reapFrom: from,
        reapUntil: until,
        graceMs,
      },
      { keys: this.#lists, rows: this.#lanes },
    );
    return {
      now,
      waiting,
      dueDeliveries,
      dueUsage,
      nextDueMs: nextDueMs < 0 ? undefined : nextDueMs,
      payloads: payloads.map(([queue, sha1, bytes, raw]) => ({ queue, sha1, bytes, raw })),
      strayRuns: strays.map(strayFrom),
    };
  }

  async admit(queue: string, entries: readonly (readonly [string, Admission])[]): Promise<readonly Admitted[]> {
    if (entries.length === 0) return [];
    const { callsBack, retentionMs } = this.#options;
    const done = await this.#run(
      'admit',
      { callsBack, retentionMs, maxPayloadBytes: MAX_PAYLOAD_BYTES, maxRejected: MAX_REJECTED },
      { keys: [queue], rows: entries.map(([sha1, admission]) => ({ sha1, ...admissionRow(admission) })) },
    );
    return entries.map((_, i) => done[i] ?? 'moved');
  }

  async claim({ token, worker, leaseMs, seed, traceparent = '', lanes }: ClaimRequest): Promise<Lease | undefined> {
    const { callsBack } = this.#options;
    const claimed = await this.#run('claim', { token, worker, leaseMs, seed, callsBack, traceparent }, { rows: lanes });
    if (claimed === null) return undefined;
    const [, isCancelled, fields] = claimed;
    return leaseFrom(fieldsFrom(fields), isCancelled === 1);
  }

  heartbeat({ id, token, leaseMs, progress = '' }: Heartbeat): Promise<Held | 'cancelled'> {
    const { publishes } = this.#runner;
    return this.#run('heartbeat', { id, token, leaseMs, progress, progressMs: PROGRESS_MS, publishes });
  }

  record(id: string, token: string, fields: RecordedFields): Promise<Held> {
    const rows = Object.entries(fields).map(([field, value = '']) => ({ field, value }));
    return this.#run('record', { id, token }, { rows });
  }

  release({ id, token, isSpent, delayMs, keepsServer, reason }: Release): Promise<Held> {
    return this.#run('release', { id, token, isSpent, delayMs: Math.round(delayMs), keepsServer, reason });
  }

  finish({ id, token, state, callback: body, progress, usage = '', isSpent = true }: Finish): Promise<Held> {
    const { callsBack, retentionMs } = this.#options;
    const { publishes } = this.#runner;
    const last = { progress, progressMs: PROGRESS_MS, publishes };
    return this.#run('finish', { id, token, state, body, callsBack, retentionMs, ...last, usage, isSpent });
  }

  async takeDeliveries(token: string, most: number, leaseMs: number): Promise<readonly Delivery[]> {
    const taken = await this.#run('take-deliveries', { token, most, leaseMs });
    return taken.map((row) => deliveryFrom(token, row));
  }

  settle(id: string, token: string, settlement: Settlement): Promise<Held> {
    const { retentionMs } = this.#options;
    return this.#run('settle', { id, token, ...resultOf(settlement), retentionMs });
  }

  async takeUsage(token: string, most: number, leaseMs: number): Promise<readonly UsageDelivery[]> {
    const taken = await this.#run('take-usage', { token, most, leaseMs });
    return taken.map((row) => usageDeliveryFrom(token, row));
  }

  settleUsage({ id, run, token }: Pick<UsageDelivery, 'id' | 'run' | 'token'>, settlement: Settlement): Promise<Held> {
    const { retentionMs } = this.#options;
    return this.#run('settle-usage', { id, run, token, ...resultOf(settlement), retentionMs });
  }

  async forgetStrays(runs: readonly ServerRun[]): Promise<void> {
    await this.#run('forget-strays', {}, { rows: runs.map((run) => ({ run: strayEntry(run) })) });
  }

  async check(): Promise<StoreProblems> {
    const { publishes } = this.#runner;
    const [write, publish] = await this.#run('check', { publishes });
    return { ...(write !== '' && { write }), ...(publish !== '' && { publish }) };
  }

  waitForPush(signal: AbortSignal): Promise<void> {
    return this.#runner.waitForPush(this.#lists, signal);
  }

  async list(most: number, state?: JobState): Promise<readonly JournalFields[]> {
    return (await this.#run('list', { most, state: state ?? '' })).map(fieldsFrom);
  }

  async show(id: string): Promise<JournalFields | undefined> {
    const fields = await this.#run('show', { id });
    return fields.length === 0 ? undefined : fieldsFrom(fields);
  }

  async counts(): Promise<QueueCounts> {
    return (await this.measure()).counts;
  }

  async measure(): Promise<QueueMeasurement> {
    const numbers = await this.#run('counts', {}, { keys: this.#lists, rows: this.#lanes });
    const [pushed = 0, waiting = 0, delayed = 0, leased = 0, callbacks = 0, dead = 0, deadCallbacks = 0, rejected = 0] =
      numbers;
    const [usage = 0, deadUsage = 0, callbackMs = -1, usageMs = -1] = numbers.slice(8);
    return {
      counts: { pushed, waiting, delayed, leased, callbacks, dead, deadCallbacks, rejected, usage, deadUsage },
      oldestCallbackMs: callbackMs < 0 ? undefined : callbackMs,
      oldestUsageMs: usageMs < 0 ? undefined : usageMs,
    };
  }

  async lines(most: number): Promise<readonly UserLine[]> {
    const lines = await this.#run('lines', { most }, { rows: this.#lanes });
    return lines.map(([user, waiting]) => ({ user, waiting }));
  }

  async deadLetters(most: number): Promise<DeadLetters> {
    const [jobs, callbacks, rejected, usage] = await this.#run('dead-letters', { most });
    return { jobs, callbacks, rejected, usage };
  }

  cancel(id: string, body: string): Promise<Cancelled> {
    return this.#run('cancel', { id, keepMs: CANCEL_KEEP_MS, retentionMs: this.#options.retentionMs, body });
  }

  replay(id: string, callbackOnly: boolean): Promise<Replayed> {
    return this.#run('replay', { id, callbackOnly });
  }

  close(): Promise<void> {
    return this.#runner.close();
  }

  #run<Name extends ScriptName>(
    name: Name,
    values: ScriptArguments<Name>,
    { keys = [], rows = [] }: { readonly keys?: readonly string[]; readonly rows?: readonly ScriptRow<Name>[] } = {},
  ): Promise<ScriptResults[Name]> {
    this.#options.onCommand?.(name);
    const script = this.#scripts[name];
    const args = [this.#options.prefix, ...scriptArguments(script, values, rows)];
    return this.#answers.watch(() => this.#runner.run(script, keys, args)) as Promise<ScriptResults[Name]>;
  }
}

function strayEntry({ server, jobId }: ServerRun): string {
  return `${server} ${jobId}`;
}

function strayFrom(entry: string): ServerRun {
  // Neither addresses nor ids have spaces.
  const [server = '', jobId = ''] = entry.split(' ');
  return { server, jobId };
}

function resultOf(settlement: Settlement): Readonly<Record<'result' | 'delayMs' | 'reason', string | number>> {
  return {
    result: settlement.kind,
    delayMs: settlement.kind === 'retry' ? Math.round(settlement.delayMs) : 0,
    reason: settlement.kind === 'delivered' ? '' : settlement.reason,
  };
}

function admissionRow(admission: Admission): Omit<ScriptRow<'admit'>, 'sha1'> {
  switch (admission.kind) {
    case 'job': {
      const { kind, id, user, lane, type, traceparent = '' } = admission;
      return { kind, id, user, lane, type, text: '', traceparent };
    }
    case 'refused': {
      const { kind, id, user, lane, type, callback, traceparent = '' } = admission;
      return { kind, id, user, lane, type, text: callback, traceparent };
    }
    case 'rejected':
      return { kind: 'rejected', id: '', user: '', lane: '', type: '', text: admission.record, traceparent: '' };
  }
}
