import type { ErrorReason } from '../../errors.js';
import type { JobTypes } from '../../job-types.js';
import type { MetricsRegistry, TracedHistogram } from '../../observe/metrics-registry.js';
import { traceIdOf } from '../../std/traceparent.js';
import type {
  Admitted,
  Delivery,
  DueDelivery,
  Finish,
  Lease,
  QueueMeasurement,
  Settlement,
} from '../queue/job-queue.js';
import type { BridgeObserver, Destination, LeaseLoss, Step } from './bridge-observer.js';

/** From an image at once to a video that waited for hours, in seconds. */
const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14_400];

export interface ObservedBridge {
  readonly jobTypes: JobTypes;
  /** Jobs in flight. */
  running(): number;
  /** The last measurement of the queue; undefined while there is none. */
  measurement(): Promise<QueueMeasurement | undefined>;
}

/**
 * Metrics of a bridge. Labels have few values: job types, reasons of errors, names of commands; never a user or a job id. A
 * type that no job has is `other`.
 */
export class BridgeMetrics implements Partial<BridgeObserver> {
  readonly #jobTypes: JobTypes;
  readonly #metrics: ReturnType<typeof createMetrics>;

  constructor(registry: MetricsRegistry, bridge: ObservedBridge) {
    this.#jobTypes = bridge.jobTypes;
    this.#metrics = createMetrics(registry, bridge);
  }

  /** A command was sent to the store. */
  commandSent(command: string): void {
    this.#metrics.commands.inc({ command });
  }

  payloadAdmitted(result: Admitted, type: string | undefined): void {
    // Another bridge counts a payload that moved.
    if (result !== 'moved') this.#metrics.jobs.inc({ type: this.#typeOf(type), stage: result });
  }

  jobClaimed({ type, attempts }: Lease): void {
    this.#metrics.jobs.inc({ type: this.#typeOf(type), stage: 'claimed' });
    if (attempts > 1) this.#metrics.retries.inc({ type: this.#typeOf(type) });
  }

  stepEnded(lease: Lease, step: Step, ms: number): void {
    const type = this.#typeOf(lease.type);
    this.#metrics.jobs.inc({ type, stage: step === 'generate' ? 'generated' : 'stored' });
    observe(this.#metrics.stepSeconds, lease, { type, step }, ms / 1000);
  }

  leaseLost(_lease: Lease, how: LeaseLoss): void {
    this.#metrics.lost.inc({ how });
  }

  jobReleased({ type }: Lease, reason: ErrorReason | undefined): void {
    this.#metrics.releases.inc({ type: this.#typeOf(type), reason: reason ?? 'stopped' });
  }

  jobEnded({ type }: Lease, state: Finish['state'], reason: ErrorReason | undefined): void {
    this.#metrics.jobs.inc({ type: this.#typeOf(type), stage: state });
    if (reason !== undefined) this.#metrics.failures.inc({ type: this.#typeOf(type), reason });
  }

  deliveryEnded(destination: Destination, settlement: Settlement, delivery: DueDelivery): void {
    this.#metrics.deliveries.inc({ destination, result: settlement.kind });
    if (settlement.kind !== 'delivered' || destination !== 'callback') return;
    const { type, kind, totalMs } = delivery as Delivery;
    observe(this.#metrics.callbackSeconds, delivery, { type: this.#typeOf(type), kind }, totalMs / 1000);
  }

  #typeOf(type: string | undefined): string {
    return type !== undefined && this.#jobTypes.has(type) ? type : 'other';
  }
}

/** Observes a value, with the trace of its job as the exemplar. */
function observe(
  histogram: TracedHistogram,
  { traceparent }: Pick<Lease, 'traceparent'>,
  labels: Readonly<Record<string, string>>,
  value: number,
): void {
  const traceId = traceIdOf(traceparent);
  histogram.observe({ labels, value, ...(traceId !== undefined && { exemplarLabels: { trace_id: traceId } }) });
}

function createMetrics(registry: MetricsRegistry, bridge: ObservedBridge) {
  registry.gauge({
    name: 'darkroom_bridge_leases',
    help: 'Jobs that this bridge has in flight.',
    collect() {
      this.set(bridge.running());
    },
  });
  registry.gauge({
    name: 'darkroom_bridge_queue_jobs',
    help: 'Jobs in the queue of all bridges; pushed: payloads that no bridge has read.',
    labels: ['state'],
    async collect() {
      this.reset();
      const { counts } = (await bridge.measurement()) ?? {};
      if (counts === undefined) return;
      for (const state of ['pushed', 'waiting', 'delayed', 'leased'] as const) this.set({ state }, counts[state]);
    },
  });
  registry.gauge({
    name: 'darkroom_bridge_outbox_entries',
    help: 'Callbacks and usage records of all bridges that are not delivered.',
    labels: ['destination'],
    async collect() {
      this.reset();
      const { counts } = (await bridge.measurement()) ?? {};
      if (counts === undefined) return;
      this.set({ destination: 'callback' }, counts.callbacks);
      this.set({ destination: 'usage' }, counts.usage);
    },
  });
  registry.gauge({
    name: 'darkroom_bridge_outbox_oldest_seconds',
    help: 'Time since when the oldest undelivered callback or usage record is due; 0 if there is none.',
    labels: ['destination'],
    async collect() {
      this.reset();
      const measured = await bridge.measurement();
      if (measured === undefined) return;
      this.set({ destination: 'callback' }, (measured.oldestCallbackMs ?? 0) / 1000);
      this.set({ destination: 'usage' }, (measured.oldestUsageMs ?? 0) / 1000);
    },
  });
  registry.gauge({
    name: 'darkroom_bridge_dead_letters',
    help: 'Jobs, callbacks, usage records and payloads of all bridges that were given up and are kept.',
    labels: ['kind'],
    async collect() {
      this.reset();
      const { counts } = (await bridge.measurement()) ?? {};
      if (counts === undefined) return;
      this.set({ kind: 'job' }, counts.dead);
      this.set({ kind: 'callback' }, counts.deadCallbacks);
      this.set({ kind: 'usage' }, counts.deadUsage);
      this.set({ kind: 'payload' }, counts.rejected);
    },
  });
  return {
    jobs: registry.counter({
      name: 'darkroom_bridge_jobs_total',
      help: 'Jobs that reached a stage: admitted, duplicate, refused, rejected; claimed, generated, stored; completed, failed, dead, cancelled.',
      labels: ['type', 'stage'],
    }),
    retries: registry.counter({
      name: 'darkroom_bridge_retries_total',
      help: 'Claims of jobs that an earlier attempt did not end.',
      labels: ['type'],
    }),
    releases: registry.counter({
      name: 'darkroom_bridge_releases_total',
      help: 'Jobs that returned to the queue, by the reason that ended the attempt; stopped: the bridge stopped.',
      labels: ['type', 'reason'],
    }),
    failures: registry.counter({
      name: 'darkroom_bridge_failures_total',
      help: 'Jobs that ended without a result.',
      labels: ['type', 'reason'],
    }),
    lost: registry.counter({
      name: 'darkroom_bridge_leases_lost_total',
      help: 'Leases that went to another bridge: found by a renewal, or by a write that was rejected (fenced).',
      labels: ['how'],
    }),
    stepSeconds: registry.tracedHistogram({
      name: 'darkroom_bridge_step_seconds',
      help: 'Time of the steps of an attempt: generate (on the server, the transfer of the files included), store.',
      labels: ['type', 'step'],
      buckets: SECONDS,
    }),
    deliveries: registry.counter({
      name: 'darkroom_bridge_deliveries_total',
      help: 'Attempts at a delivery.',
      labels: ['destination', 'result'],
    }),
    callbackSeconds: registry.tracedHistogram({
      name: 'darkroom_bridge_callback_seconds',
      help: 'Time from the admission of a payload to the delivery of its callback.',
      labels: ['type', 'kind'],
      buckets: SECONDS,
    }),
    commands: registry.counter({
      name: 'darkroom_bridge_store_commands_total',
      help: 'Commands to the store, by script. Divided by the jobs that ended it is the number of commands a job; Upstash bills each one.',
      labels: ['command'],
    }),
  };
}
