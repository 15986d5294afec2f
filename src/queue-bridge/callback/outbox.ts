import { randomUUID } from 'node:crypto';
import type { Logger } from '../../log.js';
import { backoffMs } from '../../std/backoff.js';
import { webhookHeaders } from '../../std/standard-webhooks.js';
import type { Delivery, JobQueue, Settlement } from '../queue/job-queue.js';
import { processingBody } from './callback-body.js';
import { webhookId } from './webhook-id.js';

/** A delivery's lease is this much longer than an attempt can take, so that no other bridge delivers the same callback. */
const LEASE_SLACK_MS = 2000;
/** Statuses below 500 after which a retry may succeed: timeout, too early, too many requests. */
const TEMPORARY_STATUSES = [408, 425, 429];
const MAX_REASON_CHARACTERS = 300;

export interface OutboxOptions {
  readonly queue: JobQueue;
  readonly log: Logger;
  readonly url: string;
  /** Bearer token; omitted: none. */
  readonly token?: string | undefined;
  /** `whsec_…`. Omitted: callbacks are not signed. */
  readonly secret?: string | undefined;
  readonly timeoutMs: number;
  readonly retryMs: number;
  readonly retryMaxMs: number;
  /** Age after which a callback that still fails is given up. */
  readonly maxAgeMs: number;
  readonly concurrency: number;
  /** Called after each delivery. */
  readonly onSettled: () => void;
}

/** Delivers callbacks that are due; several bridges share one outbox. */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #inFlight = new Set<Promise<void>>();

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  get room(): number {
    return this.#options.concurrency - this.#inFlight.size;
  }

  /** Starts as many deliveries as there is room for. @returns their number */
  async deliverDue(): Promise<number> {
    const { queue, timeoutMs } = this.#options;
    const takenAt = performance.now();
    const leaseMs = timeoutMs + LEASE_SLACK_MS;
    const deliveries = await queue.takeDeliveries(randomUUID(), this.room, leaseMs);
    for (const delivery of deliveries) {
      const done = this.#deliver(delivery, takenAt + LEASE_SLACK_MS / 2).finally(() => {
        this.#inFlight.delete(done);
        this.#options.onSettled();
      });
      this.#inFlight.add(done);
    }
    return deliveries.length;
  }

  /** Waits for the deliveries in flight. */
  async whenIdle(): Promise<void> {
    await Promise.all(this.#inFlight);
  }

  async #deliver(delivery: Delivery, startBy: number): Promise<void> {
    const { queue, log } = this.#options;
    const { id, token, kind, run } = delivery;
    // Our lease may have expired, and another bridge may be delivering this callback.
    if (performance.now() > startBy) return;
    const settlement = await this.#send(delivery);
    const facts = { jobId: id, run, callback: kind, attempts: delivery.attempts + 1 };
    if (settlement.kind === 'dead') log.error({ ...facts, reason: settlement.reason }, 'callback given up');
    else if (settlement.kind === 'retry') log.warn({ ...facts, ...settlement }, 'callback failed');
    else log.debug(facts, 'callback delivered');
    // If the lease was lost, another bridge has settled the callback. The receiver recognises the repeat by its id.
    await queue
      .settle(id, token, settlement)
      .catch((error: unknown) => log.error({ err: error, ...facts }, 'callback not settled'));
  }

  async #send(delivery: Delivery): Promise<Settlement> {
    const { url, token, secret, timeoutMs } = this.#options;
    const { id, kind, run } = delivery;
    const body = kind === 'processing' ? processingBody(id, delivery) : delivery.callback;
    const signed = webhookHeaders(
      { id: webhookId(id, run, kind), timestamp: Math.floor(Date.now() / 1000), body },
      secret,
    );
    const signal = AbortSignal.timeout(timeoutMs);
    const post = async (to: string) => {
      const response = await fetch(to, {
        method: 'POST',
        redirect: 'manual',
        headers: {
          ...signed,
          'content-type': 'application/json',
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
        },
        body,
        signal,
      });
      await response.body?.cancel();
      return response;
    };
    try {
      const first = await post(url);
      const location = redirectOf(first, url);
      // A redirect that keeps the method is followed once, within the origin: the token goes nowhere else.
      const response = location !== undefined && isSameOrigin(location, url) ? await post(location) : first;
      if (response.ok) return { kind: 'delivered' };
      const pointed = location === undefined ? '' : ` and pointed to ${location.slice(0, MAX_REASON_CHARACTERS)}`;
      const reason = `the receiver answered ${response.status}${pointed}`;
      if (response.status < 500 && !TEMPORARY_STATUSES.includes(response.status)) return { kind: 'dead', reason };
      return this.#retry(delivery, reason, retryAfterMs(response.headers.get('retry-after')));
    } catch (error) {
      return this.#retry(delivery, reasonOf(error));
    }
  }

  #retry({ attempts, ageMs }: Delivery, reason: string, askedMs = 0): Settlement {
    const { retryMs, retryMaxMs, maxAgeMs } = this.#options;
    if (ageMs >= maxAgeMs) return { kind: 'dead', reason };
    const asked = Math.min(askedMs, retryMaxMs);
    const delayMs = asked + backoffMs(attempts + 1, { initial: retryMs, max: retryMaxMs });
    return { kind: 'retry', delayMs, reason };
  }
}

/** The target of a 307 or 308; undefined for other answers. */
function redirectOf({ status, headers }: Response, base: string): string | undefined {
  const location = status === 307 || status === 308 ? headers.get('location') : null;
  return location !== null && URL.canParse(location, base) ? new URL(location, base).href : undefined;
}

function isSameOrigin(one: string, other: string): boolean {
  return new URL(one).origin === new URL(other).origin;
}

/** Reads seconds or a date. https://www.rfc-editor.org/rfc/rfc9110#field.retry-after */
function retryAfterMs(header: string | null): number {
  if (header === null) return 0;
  const ms = /^\d{1,9}$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return (cause instanceof Error ? cause.message : String(cause)).slice(0, MAX_REASON_CHARACTERS);
}
