import { randomUUID } from 'node:crypto';
import type { Logger } from '../log.js';
import { type Traces, traced } from '../observe/traces.js';
import { backoffMs } from '../std/backoff.js';
import { webhookHeaders } from '../std/standard-webhooks.js';
import { traceIdOf } from '../std/traceparent.js';
import type { BridgeObserver, Destination } from './observe/bridge-observer.js';
import type { DueDelivery, Held, Settlement } from './queue/job-queue.js';

/** A delivery's lease is this much longer than an attempt can take, so that no other bridge delivers the same callback. */
const LEASE_SLACK_MS = 2000;
/** Statuses below 500 after which a retry may succeed: timeout, too early, too many requests. */
const TEMPORARY_STATUSES = [408, 425, 429];
const MAX_REASON_CHARACTERS = 300;

/** What an outbox delivers, and where it takes it from. */
export interface OutboxChannel<D extends DueDelivery> {
  readonly destination: Destination;
  /** Leases what is due. */
  take(token: string, most: number, leaseMs: number): Promise<readonly D[]>;
  settle(delivery: D, settlement: Settlement): Promise<Held>;
  /** `id`: the same for every attempt and every repeat. */
  messageOf(delivery: D): { readonly id: string; readonly body: string };
}

export interface OutboxOptions<D extends DueDelivery> {
  readonly channel: OutboxChannel<D>;
  readonly log: Logger;
  readonly observer: BridgeObserver;
  readonly traces: Traces | undefined;
  readonly url: string;
  /** Bearer token; omitted: none. */
  readonly token?: string | undefined;
  /** `whsec_…`. Omitted: messages are not signed. */
  readonly secret?: string | undefined;
  readonly timeoutMs: number;
  readonly retryMs: number;
  readonly retryMaxMs: number;
  /** Age after which a message that still fails is given up. */
  readonly maxAgeMs: number;
  readonly concurrency: number;
  /** Called after each delivery. */
  readonly onSettled: () => void;
}

/** Delivers messages that are due; several bridges share one outbox. */
export class Outbox<D extends DueDelivery> {
  readonly #options: OutboxOptions<D>;
  readonly #inFlight = new Set<Promise<void>>();

  constructor(options: OutboxOptions<D>) {
    this.#options = options;
  }

  get room(): number {
    return this.#options.concurrency - this.#inFlight.size;
  }

  /** Starts as many deliveries as there is room for. @returns their number */
  async deliverDue(): Promise<number> {
    const { channel, timeoutMs } = this.#options;
    const takenAt = performance.now();
    const leaseMs = timeoutMs + LEASE_SLACK_MS;
    const deliveries = await channel.take(randomUUID(), this.room, leaseMs);
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

  async #deliver(delivery: D, startBy: number): Promise<void> {
    const { channel, log, observer, traces } = this.#options;
    const { destination } = channel;
    // Our lease may have expired, and another bridge may be delivering this message.
    if (performance.now() > startBy) return;
    const { id: messageId, body } = channel.messageOf(delivery);
    const span = {
      kind: 'client',
      parent: delivery.traceparent,
      attributes: {
        'http.request.method': 'POST',
        'darkroom.job.id': delivery.id,
        'darkroom.webhook.id': messageId,
        'darkroom.delivery.attempt': delivery.attempts + 1,
      },
    } as const;
    // Jobs that came before there were traces have none to belong to.
    const settlement = await traced(
      delivery.traceparent === undefined ? undefined : traces,
      destination,
      span,
      (parent) => this.#send(delivery, { id: messageId, body }, parent),
    );
    const traceId = traceIdOf(delivery.traceparent);
    const facts = { jobId: delivery.id, ...(traceId && { traceId }), messageId, attempts: delivery.attempts + 1 };
    if (settlement.kind === 'dead') log.error({ ...facts, reason: settlement.reason }, `${destination} given up`);
    else if (settlement.kind === 'retry') log.warn({ ...facts, ...settlement }, `${destination} failed`);
    else log.debug(facts, `${destination} delivered`);
    observer.deliveryEnded(destination, settlement, delivery);
    // If the lease was lost, another bridge has settled the message. The receiver recognises the repeat by its id.
    await channel
      .settle(delivery, settlement)
      .catch((error: unknown) => log.error({ err: error, ...facts }, `${destination} not settled`));
  }

  async #send(
    delivery: D,
    { id, body }: { readonly id: string; readonly body: string },
    traceparent: string | undefined,
  ): Promise<Settlement> {
    const { url, token, secret, timeoutMs } = this.#options;
    const signed = webhookHeaders({ id, timestamp: Math.floor(Date.now() / 1000), body }, secret);
    const signal = AbortSignal.timeout(timeoutMs);
    const post = async (to: string) => {
      const response = await fetch(to, {
        method: 'POST',
        redirect: 'manual',
        headers: {
          ...signed,
          'content-type': 'application/json',
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...(traceparent !== undefined && { traceparent }),
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

  #retry({ attempts, ageMs }: DueDelivery, reason: string, askedMs = 0): Settlement {
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
