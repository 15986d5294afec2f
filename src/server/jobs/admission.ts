import type { Engine } from '../../engine/engine.js';
import type { EngineTimings } from '../../engine/messages.js';
import { InferenceError } from '../../errors.js';
import { batchKey, batchLimit, variantKey } from '../../pipelines/common/batching.js';
import type { BuiltVariants, GenerationRequest, NetworkPrecision } from '../../pipelines/pipeline.js';
import { loadingEvent } from '../enhance/enhance-for-job.js';
import type { QueueDepth, ServerObserver } from '../observe/server-observer.js';
import type { Policy } from '../request/policy.js';
import { CostModel } from './cost-model.js';
import { FairQueue } from './fair-queue.js';
import type { GenerateJob } from './generate-job.js';
import { runBatch } from './run-batch.js';

/** Retry delay for a client that finds the queue full while no time was measured yet, in ms. */
const FIRST_RETRY_MS = 1000;
const MIN_RETRY_MS = 100;

/** Jobs that are this near to their turn report every change of their position. */
const NEAR = 10;

const NO_VARIANTS: BuiltVariants = { keys: [], builds: 0 };

interface ModelQueue {
  readonly engine: Engine;
  readonly costs: CostModel;
  /** Accepted jobs whose references or prompts are still being prepared. */
  readonly preparing: Set<GenerateJob>;
  /** Prepared jobs. Owners take turns. */
  readonly waiting: FairQueue<GenerateJob>;
  running: readonly GenerateJob[];
  /** LoRA variants that the engine holds. */
  variants: BuiltVariants;
  /** What its networks computed in at the last job. Undefined before the first one. */
  precisions: readonly NetworkPrecision[] | undefined;
  /** A loop serves this queue now. */
  isServed: boolean;
}

export interface AdmissionOptions {
  readonly engines: readonly Engine[];
  /** Checks jobs once more before they run. */
  readonly policy: Policy;
  /** Largest number of jobs that wait or run, over all models. */
  readonly limit: number;
  /** Longest time that a job which needs a new variant may be overtaken, in ms. */
  readonly patienceMs: number;
  /** Called once for every admitted job when it ends. `error`: the reason for an early end. */
  readonly onEnd: (job: GenerateJob, error?: unknown) => void;
  readonly observer: ServerObserver;
}

/**
 * One bounded queue per model, in which the owners of jobs take turns. Jobs whose LoRA variant is loaded may overtake one whose variant must be built, for
 * up to `patienceMs`. Compatible waiting jobs are batched with the job that starts.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #queues: ReadonlyMap<string, ModelQueue>;
  /** Jobs that failed in a batch: any job of it may be the cause, so each runs once more, alone. */
  readonly #alone = new WeakSet<GenerateJob>();
  /** Jobs that were the oldest and were overtaken, with the time when that began. */
  readonly #passedOverSince = new WeakMap<GenerateJob, number>();
  #draining = false;
  #idle: (() => void) | undefined;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#queues = new Map(
      options.engines.map((engine) => [
        engine.spec.model,
        {
          engine,
          costs: new CostModel(engine.spec.batchPixels),
          preparing: new Set(),
          waiting: new FairQueue<GenerateJob>(),
          running: [],
          variants: NO_VARIANTS,
          precisions: undefined,
          isServed: false,
        },
      ]),
    );
  }

  get draining(): boolean {
    return this.#draining;
  }

  get running(): number {
    return [...this.#queues.values()].reduce((sum, { running }) => sum + running.length, 0);
  }

  get waiting(): number {
    return [...this.#queues.values()].reduce((sum, { waiting, preparing }) => sum + waiting.length + preparing.size, 0);
  }

  get depths(): readonly QueueDepth[] {
    return [...this.#queues].map(([model, { preparing, waiting, running }]) => ({
      model,
      preparing: preparing.size,
      waiting: waiting.length,
      running: running.length,
    }));
  }

  /** LoRA variants of a model after its last job. */
  variants(model: string): BuiltVariants {
    return this.#queue(model).variants;
  }

  /** What the networks of a model compute in, as far as it is known. */
  precisions(model: string): readonly NetworkPrecision[] {
    const { precisions, engine } = this.#queue(model);
    return precisions ?? engine.info?.precisions ?? [];
  }

  /** @throws InferenceError DRAINING with a retry delay */
  assertNotDraining(): void {
    if (!this.#draining) return;
    throw new InferenceError(
      'DRAINING',
      'the server is draining and takes no more jobs; try again elsewhere or later',
      {
        retryAfterMs: 5000,
      },
    );
  }

  /** @throws InferenceError DRAINING or QUEUE_FULL, both with a retry delay; the model's failure if it cannot start */
  assertRoom(model: string): void {
    const queue = this.#queue(model);
    this.assertNotDraining();
    if (queue.engine.failure !== undefined && queue.engine.state === 'failed') throw queue.engine.failure;
    if (this.running + this.waiting < this.#options.limit) return;
    throw new InferenceError(
      'QUEUE_FULL',
      `the queue holds ${this.#options.limit} jobs, its limit; try again later or raise LIMIT_QUEUE`,
      { retryAfterMs: Math.max(MIN_RETRY_MS, 1000 * (secondsOf(queue.running, queue) ?? FIRST_RETRY_MS / 1000)) },
    );
  }

  /** Puts a job into its model's queue. Call `assertRoom` before it, in the same turn of the event loop. */
  submit(job: GenerateJob): void {
    const queue = this.#queue(job.model);
    job.signal.addEventListener('abort', () => this.#abandon(queue, job), { once: true });
    if (!job.needsPreparation) {
      this.#enqueue(queue, job);
      return;
    }
    queue.preparing.add(job);
    this.#emitPosition(queue, job, queue.waiting.length);
    job.prepare().then(
      () => {
        if (queue.preparing.delete(job)) this.#enqueue(queue, job);
      },
      (error: unknown) => {
        if (queue.preparing.delete(job)) this.#finish(job, error);
        this.#settle();
      },
    );
  }

  /** Estimates a job of the model and its wait; undefined while nothing was measured. */
  estimate(model: string, request: GenerationRequest): Estimate {
    const queue = this.#queue(model);
    const seconds = queue.costs.estimate(request)?.total;
    return {
      seconds,
      peakBytes: queue.costs.peakBytes(request),
      queueSeconds: this.#secondsBefore(queue, queue.waiting.length),
    };
  }

  /** Accepts no more jobs. Resolves when the accepted ones have ended. */
  drain(): Promise<void> {
    this.#draining = true;
    return new Promise((resolve) => {
      this.#idle = resolve;
      this.#settle();
    });
  }

  // Removes a waiting job from its queue. A running job sees its signal instead.
  #abandon(queue: ModelQueue, job: GenerateJob): void {
    const wasPreparing = queue.preparing.delete(job);
    const place = queue.waiting.remove(job);
    if (place < 0 && !wasPreparing) return;
    this.#finish(job, job.signal.reason);
    if (place >= 0) this.#emitPositions(queue, place);
    this.#settle();
  }

  #enqueue(queue: ModelQueue, job: GenerateJob): void {
    const place = queue.waiting.add(job, job.turnKey);
    this.#emitPosition(queue, job, place);
    this.#emitPositions(queue, place + 1);
    if (!queue.isServed) void this.#serve(queue);
  }

  async #serve(queue: ModelQueue): Promise<void> {
    queue.isServed = true;
    while (queue.waiting.length > 0) await this.#serveNext(queue);
    queue.isServed = false;
    this.#settle();
  }

  async #serveNext(queue: ModelQueue): Promise<void> {
    const [next] = queue.waiting;
    if (queue.engine.state !== 'ready') {
      queue.variants = NO_VARIANTS;
      queue.precisions = undefined;
      next?.emit({ $case: 'modelLoading', value: loadingEvent(queue.engine.spec.model) });
      const failure: unknown = await queue.engine.whenReady().then(
        () => undefined,
        (error: unknown) => error,
      );
      if (failure !== undefined) this.#failFirst(queue, failure);
      // The queue may have changed while we waited.
      return;
    }
    const jobs = this.#take(queue);
    queue.running = jobs;
    this.#emitPositions(queue, 0);
    queue.costs.observeLoaded(queue.engine.residentBytes);
    const { observer } = this.#options;
    const onTimings = (timings: EngineTimings, job: GenerateJob) => {
      queue.variants = timings.variants;
      queue.precisions = timings.modelPrecisions;
      observer.runEnded(job, timings);
    };
    observer.jobsStarted(jobs);
    const errors = await runBatch(jobs, queue.engine, {
      costs: queue.costs,
      policy: this.#options.policy,
      onTimings,
    }).catch((error: unknown) => jobs.map(() => error));
    queue.running = [];
    // A failure may have evicted variants.
    if (errors.some((error) => error !== undefined)) queue.variants = { ...queue.variants, keys: [] };
    const again = jobs.filter((job, i) => this.#failedInCompany(job, errors[i], jobs.length));
    for (const [i, job] of jobs.entries()) if (!again.includes(job)) this.#finish(job, errors[i]);
    for (const job of again) this.#alone.add(job);
    for (const job of again.toReversed()) queue.waiting.putBack(job, job.turnKey);
  }

  /** Removes the next job and the jobs that fit into its batch from the queue, in their order. */
  #take(queue: ModelQueue): readonly GenerateJob[] {
    const first = this.#choose(queue);
    if (first === undefined) return [];
    const others = queue.waiting.slice(0).filter((job) => job !== first);
    const jobs = [first];
    const limit = batchLimit(first.request, queue.engine.spec.batchPixels);
    let images = first.request.seeds.length;
    for (const job of this.#alone.has(first) ? [] : others) {
      if (images + job.request.seeds.length > limit || this.#alone.has(job)) continue;
      if (batchKey(job.request) !== batchKey(first.request)) continue;
      jobs.push(job);
      images += job.request.seeds.length;
    }
    for (const job of jobs) queue.waiting.take(job);
    return jobs;
  }

  /**
   * The oldest job, or one whose variant is loaded if the oldest needs a new variant and has not waited longer than
   * `patienceMs`.
   */
  #choose({ waiting, variants }: ModelQueue): GenerateJob | undefined {
    const [oldest] = waiting;
    const isBuilt = ({ request }: GenerateJob) => {
      const key = variantKey(request);
      return key === '' || variants.keys.includes(key);
    };
    if (oldest === undefined || isBuilt(oldest)) return oldest;
    const since = this.#passedOverSince.get(oldest) ?? Date.now();
    this.#passedOverSince.set(oldest, since);
    if (Date.now() - since >= this.#options.patienceMs) return oldest;
    return waiting.slice(0).find(isBuilt) ?? oldest;
  }

  // Any job of a failed batch may be the cause: each runs once more alone, so that none fails for another one.
  #failedInCompany(job: GenerateJob, error: unknown, company: number): boolean {
    return error !== undefined && company > 1 && !job.signal.aborted;
  }

  #failFirst(queue: ModelQueue, error: unknown): void {
    const [job] = queue.waiting;
    if (job === undefined) return;
    queue.waiting.take(job);
    this.#finish(job, error);
  }

  #finish(job: GenerateJob, error?: unknown): void {
    this.#options.onEnd(job, error);
  }

  /** Reports the positions of the waiting jobs from a place on, to those whose position changed noticeably. */
  #emitPositions(queue: ModelQueue, from: number): void {
    let etaSeconds = this.#secondsBefore(queue, from);
    for (const [i, job] of queue.waiting.slice(from).entries()) {
      const position = from + i + queue.running.length;
      if (isNews(position, job.reportedPosition)) job.emit({ $case: 'queued', value: { position, etaSeconds } });
      const seconds = secondsOf([job], queue);
      etaSeconds = etaSeconds === undefined || seconds === undefined ? undefined : etaSeconds + seconds;
    }
  }

  #emitPosition(queue: ModelQueue, job: GenerateJob, place: number): void {
    const position = place + queue.running.length;
    job.emit({ $case: 'queued', value: { position, etaSeconds: this.#secondsBefore(queue, place) } });
  }

  #secondsBefore(queue: ModelQueue, place: number): number | undefined {
    return secondsOf([...queue.running, ...queue.waiting.slice(0, place)], queue);
  }

  #settle(): void {
    if (this.running + this.waiting === 0) this.#idle?.();
  }

  #queue(model: string): ModelQueue {
    const queue = this.#queues.get(model);
    if (queue !== undefined) return queue;
    throw modelNotFound(model, [...this.#queues.keys()]);
  }
}

/** A job far back reports every tenth of its way only: its events are kept, and a long queue moves often. */
function isNews(position: number, reported: number | undefined): boolean {
  if (reported === undefined) return true;
  return position !== reported && (position <= NEAR || Math.abs(position - reported) >= reported / 10);
}

export function modelNotFound(model: string, known: readonly string[]): InferenceError {
  return new InferenceError(
    'MODEL_NOT_FOUND',
    `model "${model.slice(0, 64)}" is not served; this server has: ${known.join(', ') || 'none'}`,
  );
}

export interface Estimate {
  readonly seconds: number | undefined;
  readonly peakBytes: number | undefined;
  readonly queueSeconds: number | undefined;
}

/** Seconds that jobs still take, one after the other; undefined while nothing was measured. */
function secondsOf(jobs: readonly GenerateJob[], { costs }: ModelQueue): number | undefined {
  let sum = 0;
  for (const job of jobs) {
    const cost = costs.estimate(job.request);
    if (cost === undefined) return undefined;
    sum += cost.total * (1 - job.fraction);
  }
  return sum;
}
