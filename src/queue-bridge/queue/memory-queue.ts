import { createHash } from 'node:crypto';
import { whenAborted } from '../../std/when-aborted.js';
import {
  MAX_BYTES_PER_POLL,
  MAX_PAYLOAD_BYTES,
  MAX_PAYLOADS_PER_POLL,
  MAX_READ_BYTES,
  MAX_REJECTED,
} from '../limits.js';
import { FairQueue } from './fair-queue.js';
import {
  type Admission,
  type Admitted,
  AT_ONCE,
  type Cancelled,
  type ClaimRequest,
  type DeadLetters,
  type Delivery,
  endStates,
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
  serverJobIdOf,
  type UsageDelivery,
  type UserLine,
} from './job-queue.js';
import { deliveryFrom, LEASE_EXPIRED, leaseFrom } from './journal.js';
import type { JournalField, JournalFields, RecordedFields } from './journal-fields.js';
import { MemoryUsage } from './memory-usage.js';

type Journal = Partial<Record<JournalField, string>>;

/** A job queue in this process, for a first try and for tests. Its jobs end with the process. */
export class MemoryQueue implements JobQueue {
  readonly kind = 'memory';
  readonly problem = undefined;
  readonly #options: JobQueueOptions;
  readonly #lists = new Map<string, string[]>();
  /** In order of arrival. */
  readonly #jobs = new Map<string, Journal>();
  readonly #waiting = new FairQueue();
  readonly #leases = new Map<string, number>();
  readonly #delayed = new Map<string, number>();
  readonly #outbox = new Map<string, number>();
  readonly #forget = new Map<string, number>();
  readonly #cancels = new Set<string>();
  readonly #progress = new Map<string, string>();
  readonly #dead = new Set<string>();
  readonly #deadCallbacks = new Set<string>();
  readonly #rejected: string[] = [];
  readonly #usage = new MemoryUsage();
  #strays: readonly ServerRun[] = [];
  readonly #wakers = new Set<() => void>();
  #seq = 0;

  constructor(options: JobQueueOptions) {
    this.#options = options;
  }

  async push(queue: string, payload: string): Promise<void> {
    this.#list(queue).unshift(payload);
    for (const wake of this.#wakers) wake();
  }

  async poll({ from, until }: Reaping = AT_ONCE): Promise<Poll> {
    const now = Date.now();
    // After a stop of this process its workers renew first.
    for (const id of from <= now && now <= until ? due(this.#leases, now) : []) {
      this.#leases.delete(id);
      this.#write(id, { last_error: LEASE_EXPIRED });
      this.#enqueue(id);
    }
    for (const id of due(this.#delayed, now)) {
      this.#delayed.delete(id);
      this.#enqueue(id);
    }
    for (const id of due(this.#forget, now)) this.#forgetJob(id);
    const soonest = [...this.#leases.values(), ...this.#delayed.values(), ...this.#outbox.values()];
    const nextUsage = this.#usage.nextDue(now);
    if (nextUsage !== undefined) soonest.push(nextUsage);
    return {
      now,
      payloads: listsOf(this.#options.lanes).flatMap((queue) => this.#peek(queue)),
      waiting: this.#options.lanes.map(({ name }) => name).filter((lane) => this.#waiting.has(lane)),
      dueDeliveries: due(this.#outbox, now).length,
      dueUsage: this.#usage.due(now),
      nextDueMs: soonest.length === 0 ? undefined : Math.max(0, Math.min(...soonest) - now),
      strayRuns: this.#strays,
    };
  }

  async admit(queue: string, entries: readonly (readonly [string, Admission])[]): Promise<readonly Admitted[]> {
    let hasMoved = false;
    return entries.map(([sha1, admission]) => {
      const raw = this.#list(queue).at(-1);
      hasMoved ||= raw === undefined || sha1Of(raw) !== sha1;
      if (hasMoved || raw === undefined) return 'moved';
      this.#list(queue).pop();
      return this.#take(raw, admission);
    });
  }

  async claim({ token, worker, leaseMs, seed, traceparent, lanes: turns }: ClaimRequest): Promise<Lease | undefined> {
    for (const fields of this.#jobs.values()) if (fields.token === token) return this.#leaseOf(fields);
    const next = this.#waiting.next(turns, (id) => this.#journal(id).server);
    if (next === undefined) return undefined;
    const { id, turn } = next;
    const now = Date.now();
    const fields = this.#journal(id);
    this.#leases.set(id, now + leaseMs);
    const attempts = String(Number(fields.attempts) + 1);
    this.#write(id, { state: 'leased', token, worker, started_at: String(now), attempts });
    fields.seed ??= String(seed);
    if (traceparent !== undefined) fields.traceparent ??= traceparent;
    fields.server ||= turn.server;
    if (this.#options.callsBack && fields.pcb === undefined) {
      this.#write(id, { pcb: 'due', cb_attempts: '0', cb_since: String(now) });
      this.#outbox.set(id, now);
    }
    return this.#leaseOf(fields);
  }

  async heartbeat({ id, token, leaseMs, progress }: Heartbeat): Promise<Held | 'cancelled'> {
    if (!this.#owns(id, token)) return 'lost';
    this.#leases.set(id, Date.now() + leaseMs);
    if (progress !== undefined) this.#progress.set(id, progress);
    return this.#cancels.has(id) ? 'cancelled' : 'held';
  }

  async record(id: string, token: string, fields: RecordedFields): Promise<Held> {
    if (!this.#owns(id, token)) return 'lost';
    this.#write(id, fields);
    return 'held';
  }

  async release({ id, token, isSpent, delayMs, keepsServer, reason }: Release): Promise<Held> {
    if (!this.#owns(id, token)) return 'lost';
    const attempts = Number(this.#journal(id).attempts) - (isSpent ? 0 : 1);
    this.#leases.delete(id);
    this.#write(id, { last_error: reason, attempts: String(attempts), ...(!keepsServer && { server: '' }) });
    if (delayMs > 0) {
      this.#write(id, { state: 'delayed', token: '' });
      this.#delayed.set(id, Date.now() + delayMs);
    } else {
      this.#enqueue(id);
    }
    return 'held';
  }

  async finish({ id, token, state, callback, progress, usage, isSpent = true }: Finish): Promise<Held> {
    if (this.#jobs.get(id)?.ended_by === token) return 'held';
    if (!this.#owns(id, token)) return 'lost';
    const attempts = Number(this.#journal(id).attempts) - (isSpent ? 0 : 1);
    this.#write(id, { ended_by: token, attempts: String(attempts) });
    this.#end(id, state, callback);
    this.#progress.set(id, progress);
    const { run, traceparent } = this.#journal(id);
    if (usage !== undefined) this.#usage.add({ id, run: Number(run), body: usage, traceparent });
    return 'held';
  }

  async takeDeliveries(token: string, most: number, leaseMs: number): Promise<readonly Delivery[]> {
    const now = Date.now();
    const taken: Delivery[] = [];
    for (const id of due(this.#outbox, now).slice(0, most)) {
      const fields = this.#journal(id);
      const kind = fields.cb === 'due' ? 'terminal' : fields.pcb === 'due' ? 'processing' : undefined;
      if (kind === undefined) {
        this.#outbox.delete(id);
        continue;
      }
      if (kind === 'terminal' && fields.pcb === 'due') fields.pcb = 'dropped';
      this.#write(id, { cb_token: token, cb_kind: kind, cb_until: String(now + leaseMs) });
      this.#outbox.set(id, now + leaseMs);
      const {
        run = '',
        type = '',
        user = '',
        callback = '',
        cb_attempts = '',
        cb_since = '',
        traceparent = '',
      } = fields;
      const body = kind === 'terminal' ? callback : '';
      const [ageMs, totalMs] = [cb_since, fields.created_at].map((since) => String(now - Number(since)));
      const row = [id, kind, run, type, user, body, cb_attempts, ageMs ?? '', totalMs ?? '', traceparent];
      taken.push(deliveryFrom(token, row));
    }
    return taken;
  }

  async settle(id: string, token: string, settlement: Settlement): Promise<Held> {
    const now = Date.now();
    const fields = this.#jobs.get(id);
    if (fields?.cb_token !== token) return 'lost';
    fields.cb_token = '';
    const isProcessing = fields.cb_kind === 'processing';
    if (isProcessing) {
      const over = settlement.kind === 'delivered' ? 'delivered' : 'dropped';
      if (settlement.kind !== 'retry' || fields.cb === 'due') fields.pcb = over;
      if (fields.cb === 'due') {
        this.#outbox.set(id, now);
        return 'held';
      }
    }
    if (settlement.kind === 'retry') {
      this.#write(id, { cb_attempts: String(Number(fields.cb_attempts) + 1), cb_error: settlement.reason });
      this.#outbox.set(id, now + settlement.delayMs);
      return 'held';
    }
    this.#outbox.delete(id);
    if (isProcessing) return 'held';
    fields.cb = settlement.kind;
    if (settlement.kind === 'dead') {
      fields.cb_error = settlement.reason;
      this.#deadCallbacks.add(id);
    } else {
      fields.called_back_at = String(now);
      if (fields.state !== 'dead') this.#forget.set(id, now + this.#options.retentionMs);
    }
    return 'held';
  }

  async takeUsage(token: string, most: number, leaseMs: number): Promise<readonly UsageDelivery[]> {
    return this.#usage.take(token, most, leaseMs);
  }

  async settleUsage(delivery: Pick<UsageDelivery, 'id' | 'run' | 'token'>, settlement: Settlement): Promise<Held> {
    return this.#usage.settle(delivery, settlement, this.#options.retentionMs);
  }

  async forgetStrays(runs: readonly ServerRun[]): Promise<void> {
    this.#strays = this.#strays.filter(
      (stray) => !runs.some(({ server, jobId }) => stray.server === server && stray.jobId === jobId),
    );
  }

  async waitForPush(signal: AbortSignal): Promise<void> {
    if ([...this.#lists.values()].some((list) => list.length > 0)) return;
    let wake = () => {};
    const pushed = new Promise<void>((resolve) => {
      wake = resolve;
    });
    this.#wakers.add(wake);
    await Promise.race([whenAborted(signal), pushed]);
    this.#wakers.delete(wake);
  }

  async list(most: number, state?: JobState): Promise<readonly JournalFields[]> {
    const found = [...this.#jobs.values()].reverse().filter((fields) => state === undefined || fields.state === state);
    return found.slice(0, most).map((fields) => ({ ...fields }));
  }

  async check(): Promise<StoreProblems> {
    return {};
  }

  async show(id: string): Promise<JournalFields | undefined> {
    const fields = this.#jobs.get(id);
    return fields && { ...fields };
  }

  async counts(): Promise<QueueCounts> {
    return (await this.measure()).counts;
  }

  async measure(): Promise<QueueMeasurement> {
    const now = Date.now();
    const since = [...this.#outbox.keys()].map((id) => Number(this.#journal(id).cb_since));
    const oldestUsage = this.#usage.oldest();
    return {
      counts: this.#counts(),
      oldestCallbackMs: since.length === 0 ? undefined : now - Math.min(...since),
      oldestUsageMs: oldestUsage === undefined ? undefined : now - oldestUsage,
    };
  }

  #counts(): QueueCounts {
    return {
      pushed: listsOf(this.#options.lanes).reduce((sum, queue) => sum + this.#list(queue).length, 0),
      waiting: this.#waiting.size,
      delayed: this.#delayed.size,
      leased: this.#leases.size,
      callbacks: this.#outbox.size,
      dead: this.#dead.size,
      deadCallbacks: this.#deadCallbacks.size,
      rejected: this.#rejected.length,
      usage: this.#usage.size,
      deadUsage: this.#usage.dead.length,
    };
  }

  async lines(most: number): Promise<readonly UserLine[]> {
    return this.#waiting.lines().slice(0, most);
  }

  async deadLetters(most: number): Promise<DeadLetters> {
    return {
      jobs: [...this.#dead].slice(0, most),
      callbacks: [...this.#deadCallbacks].slice(0, most),
      rejected: this.#rejected.slice(0, most),
      usage: this.#usage.dead.slice(0, most),
    };
  }

  async cancel(id: string, callback: string): Promise<Cancelled> {
    const fields = this.#jobs.get(id);
    if (fields?.state === 'waiting' || fields?.state === 'delayed') {
      this.#waiting.remove(fields.lane ?? '', fields.user ?? '', id);
      if (fields.server) {
        this.#strays = [...this.#strays, { server: fields.server, jobId: serverJobIdOf(this.#leaseOf(fields)) }];
      }
      this.#end(id, 'cancelled', callback);
      return 'cancelled';
    }
    if (fields !== undefined && fields.state !== 'leased') return 'ended';
    this.#cancels.add(id);
    return fields === undefined ? 'noted' : 'asked';
  }

  async replay(id: string, callbackOnly: boolean): Promise<Replayed> {
    const fields = this.#jobs.get(id);
    if (fields === undefined) return 'unknown';
    if (!endStates.some((state) => state === fields.state)) return 'not ended';
    this.#usage.revive(id);
    if (fields.state === 'completed' || callbackOnly || fields.payload === '') {
      this.#callBack(id);
      return 'calls back';
    }
    const { payload = '', user = '', lane = '', type = '', seq = '', pushed = '', created_at = '', seed } = fields;
    const run = String(Number(fields.run) + 1);
    const { traceparent } = fields;
    const again = { id, payload, user, lane, type, seq, pushed, created_at, run, attempts: '0' };
    const kept = { ...(seed !== undefined && { seed }), ...(traceparent !== undefined && { traceparent }) };
    this.#jobs.set(id, { ...again, ...kept });
    for (const set of [this.#dead, this.#deadCallbacks, this.#outbox, this.#forget]) set.delete(id);
    this.#enqueue(id);
    return 'runs';
  }

  async close(): Promise<void> {
    for (const wake of this.#wakers) wake();
  }

  /** The progress of a job as frontends would read it. */
  progressOf(id: string): string | undefined {
    return this.#progress.get(id);
  }

  #take(raw: string, admission: Admission): Admitted {
    if (admission.kind === 'rejected') {
      this.#rejected.unshift(admission.record);
      this.#rejected.length = Math.min(this.#rejected.length, MAX_REJECTED);
      return 'rejected';
    }
    const { id, user, lane, type, traceparent } = admission;
    const known = this.#jobs.get(id);
    if (known !== undefined) {
      known.pushed = String(Number(known.pushed) + 1);
      if (known.cb === 'delivered' || known.cb === 'dead') this.#callBack(id);
      return 'duplicate';
    }
    this.#jobs.set(id, {
      id,
      payload: Buffer.byteLength(raw) > MAX_PAYLOAD_BYTES ? '' : raw,
      user,
      lane,
      type,
      seq: String(++this.#seq),
      run: '1',
      attempts: '0',
      pushed: '1',
      created_at: String(Date.now()),
      ...(traceparent !== undefined && { traceparent }),
    });
    if (admission.kind === 'refused') {
      this.#end(id, 'failed', admission.callback);
      return 'refused';
    }
    this.#enqueue(id);
    return 'admitted';
  }

  #peek(queue: string): Poll['payloads'] {
    let bytes = 0;
    const tail = this.#list(queue).slice(-MAX_PAYLOADS_PER_POLL).reverse();
    return tail.flatMap((raw) => {
      if (bytes >= MAX_BYTES_PER_POLL) return [];
      const length = Buffer.byteLength(raw);
      bytes += length;
      return [{ queue, sha1: sha1Of(raw), bytes: length, raw: raw.slice(0, MAX_READ_BYTES) }];
    });
  }

  #enqueue(id: string): void {
    const { lane = '', user = '', seq } = this.#journal(id);
    this.#waiting.add(lane, user, id, Number(seq));
    this.#write(id, { state: 'waiting', token: '' });
  }

  #end(id: string, state: JobState, callback: string): void {
    this.#write(id, { state, callback, token: '', ended_at: String(Date.now()) });
    this.#leases.delete(id);
    this.#delayed.delete(id);
    this.#cancels.delete(id);
    if (state === 'dead') this.#dead.add(id);
    if (this.#options.callsBack) this.#callBack(id);
    else if (state !== 'dead') this.#forget.set(id, Date.now() + this.#options.retentionMs);
  }

  #callBack(id: string): void {
    const now = Date.now();
    this.#write(id, { cb: 'due', cb_attempts: '0', cb_since: String(now) });
    this.#forget.delete(id);
    this.#deadCallbacks.delete(id);
    const { cb_token, cb_until } = this.#journal(id);
    if (!cb_token || Number(cb_until) <= now) this.#outbox.set(id, now);
  }

  #forgetJob(id: string): void {
    this.#jobs.delete(id);
    this.#progress.delete(id);
    this.#forget.delete(id);
  }

  #owns(id: string, token: string): boolean {
    return this.#jobs.get(id)?.token === token;
  }

  #journal(id: string): Journal {
    const fields = this.#jobs.get(id);
    if (fields === undefined) throw new Error(`job ${id} has no journal`);
    return fields;
  }

  #write(id: string, fields: JournalFields): void {
    Object.assign(this.#journal(id), fields);
  }

  #leaseOf(fields: Journal): Lease {
    return leaseFrom(fields, this.#cancels.has(fields.id ?? ''));
  }

  #list(queue: string): string[] {
    let list = this.#lists.get(queue);
    if (list === undefined) {
      list = [];
      this.#lists.set(queue, list);
    }
    return list;
  }
}

/** Ids that are due, the earliest first. */
function due(times: ReadonlyMap<string, number>, now: number): readonly string[] {
  const ready = [...times].filter(([, at]) => at <= now);
  return ready.sort(([, a], [, b]) => a - b).map(([id]) => id);
}

function sha1Of(text: string): string {
  return createHash('sha1').update(text).digest('hex');
}
