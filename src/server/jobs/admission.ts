import type { DeviceLedgers } from '../../engine/device-ledgers.js';
import type { Engine } from '../../engine/engine.js';
import { type EngineTimings, engineName } from '../../engine/messages.js';
import { InferenceError } from '../../errors.js';
import { batchKey, batchLimit, variantKey } from '../../pipelines/common/batching.js';
import type { GenerationRequest } from '../../pipelines/pipeline.js';
import { groupBy } from '../../std/group-by.js';
import { loadingEvent } from '../enhance/enhance-for-job.js';
import type { QueueDepth, ServerObserver } from '../observe/server-observer.js';
import type { Policy } from '../request/policy.js';
import { CostModel } from './cost-model.js';
import { growthOf, memoryOfJobs, requestsTogether } from './device-memory.js';
import { EngineSlot, EngineWait, preferredFor } from './engine-slot.js';
import { FairQueue } from './fair-queue.js';
import type { GenerateJob } from './generate-job.js';
import { type BatchContext, runBatch } from './run-batch.js';

/** Retry delay for a client that finds the queue full while no time was measured yet, in ms. */
const FIRST_RETRY_MS = 1000;
const MIN_RETRY_MS = 100;

/** Jobs that are this near to their turn report every change of their position. */
const NEAR = 10;

interface ModelQueue {
  readonly model: string;
  /** The engines that serve it. */
  readonly slots: readonly EngineSlot[];
  readonly costs: CostModel;
  /** Accepted jobs whose references or prompts are still being prepared. */
  readonly preparing: Set<GenerateJob>;
  /** Prepared jobs. Owners take turns. */
  readonly waiting: FairQueue<GenerateJob>;
  /** Ends the patience of a job that waits for the engine with its variant. */
  patienceTimer?: NodeJS.Timeout | undefined;
}

export interface AdmissionOptions {
  /** Engines of one model serve one queue. */
  readonly engines: readonly Engine[];
  /** Memory of the engines' devices. */
  readonly memory: DeviceLedgers;
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
 * One bounded queue per model, in which the owners of jobs take turns, served by all engines of the model: a job goes to the one that
 * is free first. Jobs whose LoRA variant is loaded may overtake one whose variant must be built, for up to `patienceMs`. A job waits for
 * a busy engine that holds its variant if that is quicker than a build. Compatible waiting jobs are batched with the job that starts.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #queues: ReadonlyMap<string, ModelQueue>;
  /** Jobs that failed in a batch: any job of it may be the cause, so each runs once more, alone. */
  readonly #alone = new WeakSet<GenerateJob>();
  /** Jobs that were the oldest and were overtaken or left to another engine, with the time when that began. */
  readonly #passedOverSince = new WeakMap<GenerateJob, number>();
  readonly #draining = new AbortController();
  #idle: (() => void) | undefined;
  /** Number of calls that wait until the checkpoint of their model was read. */
  #expected = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#queues = new Map(
      [...groupBy(options.engines, ({ spec }) => spec.model)].map(([model, engines]) => [
        model,
        {
          model,
          slots: engines.map((engine) => new EngineSlot(engine)),
          costs: costsOf(engines),
          preparing: new Set(),
          waiting: new FairQueue<GenerateJob>(),
        },
      ]),
    );
  }

  get draining(): boolean {
    return this.drainSignal.aborted;
  }

  /** Aborted with DRAINING, which has a retry delay, when no more jobs are accepted. */
  get drainSignal(): AbortSignal {
    return this.#draining.signal;
  }

  get running(): number {
    return [...this.#queues.values()].reduce((sum, queue) => sum + runningOf(queue).length, 0);
  }

  get waiting(): number {
    return [...this.#queues.values()].reduce((sum, { waiting, preparing }) => sum + waiting.length + preparing.size, 0);
  }

  get depths(): readonly QueueDepth[] {
    return [...this.#queues.values()].map((queue) => ({
      model: queue.model,
      preparing: queue.preparing.size,
      waiting: queue.waiting.length,
      running: runningOf(queue).length,
    }));
  }

  /** The engines of a model, and what they hold after their last jobs. */
  slots(model: string): readonly EngineSlot[] {
    return this.#queue(model).slots;
  }

  /** @throws InferenceError DRAINING with a retry delay */
  assertNotDraining(): void {
    this.drainSignal.throwIfAborted();
  }

  /** @throws InferenceError DRAINING or QUEUE_FULL, both with a retry delay; the model's failure if it cannot start */
  assertRoom(model: string): void {
    const queue = this.#queue(model);
    this.assertNotDraining();
    const failure = failureOf(queue);
    if (failure !== undefined) throw failure;
    if (this.running + this.waiting + this.#expected < this.#options.limit) return;
    throw new InferenceError(
      'QUEUE_FULL',
      `the queue holds ${this.#options.limit} jobs, its limit; try again later or raise LIMIT_QUEUE`,
      { retryAfterMs: Math.max(MIN_RETRY_MS, 1000 * (this.#secondsBefore(queue, 0) ?? FIRST_RETRY_MS / 1000)) },
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

  /**
   * Counts a call that waits before it can be a job, with its files, until the returned function is called.
   * @throws InferenceError as `assertRoom` does
   */
  expect(model: string): () => void {
    this.assertRoom(model);
    this.#expected += 1;
    return () => {
      this.#expected -= 1;
    };
  }

  /** Accepts no more jobs. */
  close(): void {
    const message = 'the server is draining and takes no more jobs; try again elsewhere or later';
    this.#draining.abort(new InferenceError('DRAINING', message, { retryAfterMs: 5000 }));
  }

  /** Accepts no more jobs. Resolves when the accepted ones have ended. */
  drain(): Promise<void> {
    this.close();
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
    this.#wake(queue, variantKey(job.request));
  }

  /** Offers the waiting jobs to the engines that do nothing. @param variant that engines are preferred for */
  #wake(queue: ModelQueue, variant = ''): void {
    const free = queue.slots.filter(({ isServing }) => !isServing);
    for (const slot of preferredFor(variant, free)) if (queue.waiting.length > 0) void this.#serve(queue, slot);
  }

  async #serve(queue: ModelQueue, slot: EngineSlot): Promise<void> {
    slot.isServing = true;
    while (queue.waiting.length > 0) if (!(await this.#serveNext(queue, slot))) return;
    slot.isServing = false;
    this.#settle();
  }

  /** @returns false if no waiting job is for this engine now: it no longer serves then */
  async #serveNext(queue: ModelQueue, slot: EngineSlot): Promise<boolean> {
    const { engine } = slot;
    if (engine.state !== 'ready') {
      // The first one speaks for all.
      if (!queue.slots.some(({ isUp }) => isUp) && aliveOf(queue)[0] === slot)
        queue.waiting.slice(0, 1)[0]?.emit({ $case: 'modelLoading', value: loadingEvent(queue.model) });
      const failure: unknown = await engine.whenReady().then(
        () => undefined,
        (error: unknown) => error,
      );
      // The queue may have changed while we waited.
      if (failure === undefined) return true;
      if (aliveOf(queue).length > 0) {
        slot.isServing = false;
        return false;
      }
      this.#failFirst(queue, failure);
      return true;
    }
    const jobs = this.#take(queue, slot);
    if (jobs.length === 0) {
      slot.isServing = false;
      return false;
    }
    slot.running = jobs;
    this.#emitPositions(queue, 0);
    queue.costs.observeLoaded(engine.residentBytes);
    const onTimings = (timings: EngineTimings, job: GenerateJob) => {
      const { variants, modelPrecisions, buildMs } = timings;
      slot.variants = variants;
      slot.precisions = modelPrecisions;
      if (buildMs > 0) slot.buildSeconds = buildMs / 1000;
      this.#options.memory.setVariants(engine, variants.bytes ?? 0);
      this.#options.observer.runEnded(job, timings, engineName(engine.spec));
    };
    const ended = new Set<GenerateJob>();
    const batch = new AbortController();
    // A job ends when it is done or given up, whatever the others of its batch still have to do.
    const onEnd = (job: GenerateJob, error: unknown) => {
      if (ended.has(job)) return;
      if (this.#failedInCompany(job, error, jobs.length)) {
        // It waits for the others before it runs alone, and may be cancelled meanwhile.
        const giveUp = () => onEnd(job, job.signal.reason);
        job.signal.addEventListener('abort', giveUp, { once: true, signal: batch.signal });
        return;
      }
      ended.add(job);
      slot.running = slot.running.filter((other) => other !== job);
      this.#finish(job, error !== undefined && job.signal.aborted ? job.signal.reason : error);
      // After the last one the next jobs leave the queue.
      if (slot.running.length > 0) this.#emitPositions(queue, 0);
    };
    const errors = await this.#run(queue, slot, jobs, { onTimings, onEnd }).catch((error: unknown) =>
      jobs.map(() => error),
    );
    batch.abort();
    slot.running = [];
    if (errors === 'not run') {
      this.#putBack(queue, jobs);
      this.#wake(queue);
      return true;
    }
    if (errors.some((error) => error !== undefined)) slot.forgetVariants();
    for (const [i, job] of jobs.entries()) onEnd(job, errors[i]);
    const again = jobs.filter((job) => !ended.has(job));
    for (const job of again) this.#alone.add(job);
    this.#putBack(queue, again);
    // Another engine may now be the one for a job that waited for this one.
    this.#wake(queue);
    return true;
  }

  #putBack(queue: ModelQueue, jobs: readonly GenerateJob[]): void {
    for (const job of jobs.toReversed()) if (!job.signal.aborted) queue.waiting.putBack(job, job.turnKey);
    for (const job of jobs) if (job.signal.aborted) this.#finish(job, job.signal.reason);
  }

  /**
   * Runs jobs once the engine's device has the memory for them.
   * @returns for each job the reason for an early end; `not run`: the engine's process ended before
   */
  async #run(
    { costs }: ModelQueue,
    { engine }: EngineSlot,
    jobs: readonly GenerateJob[],
    listener: Pick<BatchContext, 'onTimings' | 'onEnd'>,
  ): Promise<readonly unknown[] | 'not run'> {
    const { memory, policy } = this.#options;
    const [first] = jobs as [GenerateJob];
    const needed = memoryOfJobs(engine.info?.memory, jobs, engine.spec.batchPixels);
    const together = requestsTogether(jobs);
    const measured = together.map((request) => costs.peakBytes(request) ?? 0);
    const measuredBytes = engine.device === 'cpu' ? Math.max(...measured) : undefined;
    const signal = jobs.length === 1 ? first.signal : undefined;
    const grant = needed && (await memory.grant(engine, needed, { measuredBytes, signal }));
    try {
      if (engine.state !== 'ready') return 'not run';
      this.#options.observer.jobsStarted(jobs);
      for (const request of together) costs.observeStarted(request);
      return await runBatch(jobs, engine, { costs, policy, ...listener, onEncoded: () => grant?.encoded() });
    } finally {
      grant?.end();
    }
  }

  /** Removes the next job and the jobs that fit into its batch from the queue, in their order. */
  #take(queue: ModelQueue, slot: EngineSlot): readonly GenerateJob[] {
    const first = this.#choose(queue, slot);
    if (first === undefined) return [];
    const others = queue.waiting.slice(0).filter((job) => job !== first);
    const jobs = [first];
    const limit = batchLimit(first.request, slot.engine.spec.batchPixels);
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
   * The oldest job that is not left to another engine, or one whose variant is loaded if the oldest needs a new variant and has not
   * waited longer than `patienceMs`.
   */
  #choose(queue: ModelQueue, slot: EngineSlot): GenerateJob | undefined {
    // One pass: a long queue is looked through whenever an engine is free.
    const waits = new Map<string, EngineWait | undefined>();
    const jobs = queue.waiting.slice(0).filter((job) => {
      const variant = variantKey(job.request);
      if (!waits.has(variant)) waits.set(variant, waitForHolders(variant, queue, slot));
      const wait = waits.get(variant);
      const isLeft = wait !== undefined && this.#isLeftToAnother(job, queue, wait.seconds);
      wait?.add(secondsLeft(job, queue));
      return !isLeft;
    });
    const [oldest] = jobs;
    const isBuilt = ({ request }: GenerateJob) => slot.holds(variantKey(request));
    if (oldest === undefined || isBuilt(oldest)) return oldest;
    if (this.#patienceLeft(oldest) <= 0) return oldest;
    return jobs.find(isBuilt) ?? oldest;
  }

  /**
   * True while a busy engine that holds the job's variant is expected to be done with its work before this one would have built it.
   * What is not known yet counts as quicker.
   * @param wait seconds until such an engine has done its work and the jobs of the variant before this one
   */
  #isLeftToAnother(job: GenerateJob, queue: ModelQueue, wait: number | undefined): boolean {
    const patience = this.#patienceLeft(job);
    if (patience <= 0) return false;
    const build = Math.max(...queue.slots.map(({ buildSeconds = 0 }) => buildSeconds));
    if (wait !== undefined && build > 0 && wait > build) return false;
    queue.patienceTimer ??= setTimeout(() => {
      queue.patienceTimer = undefined;
      this.#wake(queue);
    }, patience).unref();
    return true;
  }

  /** Time that a job which needs a new variant may still be overtaken, in ms. It starts with the first call. */
  #patienceLeft(job: GenerateJob): number {
    const since = this.#passedOverSince.get(job) ?? performance.now();
    this.#passedOverSince.set(job, since);
    return this.#options.patienceMs - (performance.now() - since);
  }

  // Any job of a failed batch may be the cause: each runs once more alone, so that none fails for another one. What the policy says of
  // one was no other's doing.
  #failedInCompany(job: GenerateJob, error: unknown, company: number): boolean {
    if (error === undefined || company === 1 || job.signal.aborted) return false;
    return InferenceError.from(error).reason !== 'POLICY';
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
    const wait = this.#waitBefore(queue, from);
    const running = runningOf(queue).length;
    for (const [i, job] of queue.waiting.slice(from).entries()) {
      const position = from + i + running;
      if (isNews(position, job.reportedPosition))
        job.emit({ $case: 'queued', value: { position, etaSeconds: wait.seconds } });
      wait.add(secondsLeft(job, queue));
    }
  }

  #emitPosition(queue: ModelQueue, job: GenerateJob, place: number): void {
    const position = place + runningOf(queue).length;
    job.emit({ $case: 'queued', value: { position, etaSeconds: this.#secondsBefore(queue, place) } });
  }

  #secondsBefore(queue: ModelQueue, place: number): number | undefined {
    return this.#waitBefore(queue, place).seconds;
  }

  #waitBefore(queue: ModelQueue, place: number): EngineWait {
    return waitFor(aliveOf(queue), queue.waiting.slice(0, place), queue);
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

function runningOf({ slots }: ModelQueue): readonly GenerateJob[] {
  return slots.flatMap(({ running }) => running);
}

function aliveOf({ slots }: ModelQueue): readonly EngineSlot[] {
  return slots.filter(({ isAlive }) => isAlive);
}

/** Why no engine of the model can start; undefined while one of them lives. */
function failureOf({ slots }: ModelQueue): InferenceError | undefined {
  if (!slots.every(({ engine }) => engine.state === 'failed')) return undefined;
  return slots.find(({ engine }) => engine.failure)?.engine.failure;
}

/** The wait until one of the engines is free, after what they run now and their part of the jobs. */
function waitFor(slots: readonly EngineSlot[], jobs: readonly GenerateJob[], queue: ModelQueue): EngineWait {
  const wait = new EngineWait(slots.map(({ running }) => running.map((job) => secondsLeft(job, queue))));
  for (const job of jobs) wait.add(secondsLeft(job, queue));
  return wait;
}

/** The wait for an engine that holds a variant; undefined if this one holds it, or no other does. */
function waitForHolders(variant: string, queue: ModelQueue, slot: EngineSlot): EngineWait | undefined {
  if (variant === '' || slot.holds(variant)) return undefined;
  const holders = queue.slots.filter((other) => other !== slot && other.isUp && other.holds(variant));
  return holders.length === 0 ? undefined : waitFor(holders, [], queue);
}

/** What jobs of a model are expected to cost; its engines are alike. */
function costsOf([first]: readonly Engine[]): CostModel {
  const batchPixels = first?.spec.batchPixels ?? 1;
  return new CostModel(batchPixels, (request) => growthOf(first?.info?.memory, request, batchPixels));
}

/** Seconds that a job still takes; undefined while nothing was measured. */
function secondsLeft(job: GenerateJob, { costs }: ModelQueue): number | undefined {
  const cost = costs.estimate(job.request);
  return cost && cost.total * (1 - job.fraction);
}
