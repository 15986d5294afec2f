import type { Engine } from '../../engine/engine.js';
import { InferenceError } from '../../errors.js';
import { batchKey, batchLimit, variantKey } from '../../pipelines/common/batching.js';
import type { BuiltVariants, GenerationRequest } from '../../pipelines/pipeline.js';
import { loadingEvent } from '../enhance/enhance-for-job.js';
import { CostModel } from './cost-model.js';
import type { GenerateJob } from './generate-job.js';
import { runBatch } from './run-batch.js';

/** What a client that found the queue full is told to wait when nothing is known yet. */
const FIRST_RETRY_MS = 1000;
const MIN_RETRY_MS = 100;

const NO_VARIANTS: BuiltVariants = { keys: [], builds: 0 };

interface ModelQueue {
  readonly engine: Engine;
  readonly costs: CostModel;
  /** Accepted, but not in the line yet: their references are on their way. */
  readonly preparing: Set<GenerateJob>;
  /** In the order that they became ready. */
  readonly waiting: GenerateJob[];
  running: readonly GenerateJob[];
  /** Variants of the model that its engine has. */
  variants: BuiltVariants;
  /** Whether somebody takes jobs from the line. */
  isServed: boolean;
}

export interface AdmissionOptions {
  readonly engines: readonly Engine[];
  /** Most jobs that wait or run at once, over all models. */
  readonly limit: number;
  /** How long a job may be passed over by others that need no variant of their model built, in milliseconds. */
  readonly patienceMs: number;
  /** Called once for every admitted job when it ends. `error`: what ended it early. */
  readonly onEnd: (job: GenerateJob, error?: unknown) => void;
}

/**
 * A bounded line of jobs before every model, served in the order they came, but for jobs that would have a variant of the model
 * built: those whose variant is there go before them, for a while. Whoever is next takes those along that wait anyway and fit
 * into the same runs of the denoiser.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #lines: ReadonlyMap<string, ModelQueue>;
  /** Jobs that failed in company, through no fault that is known to be theirs: they run alone once more. */
  readonly #alone = new WeakSet<GenerateJob>();
  /** Jobs that were the oldest and did not go first, and when that began. */
  readonly #passedOverSince = new WeakMap<GenerateJob, number>();
  #draining = false;
  #idle: (() => void) | undefined;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#lines = new Map(
      options.engines.map((engine) => [
        engine.spec.model,
        {
          engine,
          costs: new CostModel(engine.spec.batchPixels),
          preparing: new Set(),
          waiting: [],
          running: [],
          variants: NO_VARIANTS,
          isServed: false,
        },
      ]),
    );
  }

  get draining(): boolean {
    return this.#draining;
  }

  get running(): number {
    return [...this.#lines.values()].reduce((sum, { running }) => sum + running.length, 0);
  }

  get waiting(): number {
    return [...this.#lines.values()].reduce((sum, { waiting, preparing }) => sum + waiting.length + preparing.size, 0);
  }

  /** Variants of a model, as they were after its last job. */
  variants(model: string): BuiltVariants {
    return this.#line(model).variants;
  }

  /** @throws InferenceError DRAINING with a time to try again */
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

  /** @throws InferenceError DRAINING or QUEUE_FULL, both with a time to try again; the model's failure if it cannot start */
  assertRoom(model: string): void {
    const line = this.#line(model);
    this.assertNotDraining();
    if (line.engine.failure !== undefined && line.engine.state === 'failed') throw line.engine.failure;
    if (this.running + this.waiting < this.#options.limit) return;
    throw new InferenceError(
      'QUEUE_FULL',
      `the queue holds ${this.#options.limit} jobs, its limit; try again later or raise LIMIT_QUEUE`,
      { retryAfterMs: Math.max(MIN_RETRY_MS, 1000 * (secondsOf(line.running, line) ?? FIRST_RETRY_MS / 1000)) },
    );
  }

  /** Puts a job into its model's line; `assertRoom` was called before, in the same turn. */
  submit(job: GenerateJob): void {
    const line = this.#line(job.model);
    job.signal.addEventListener('abort', () => this.#abandon(line, job), { once: true });
    if (!job.needsPreparation) {
      this.#enqueue(line, job);
      return;
    }
    line.preparing.add(job);
    this.#tellPosition(line, job, line.waiting.length);
    job.prepare().then(
      () => {
        if (line.preparing.delete(job)) this.#enqueue(line, job);
      },
      (error: unknown) => {
        if (line.preparing.delete(job)) this.#finish(job, error);
        this.#settle();
      },
    );
  }

  /** What a job of the model would take, and how long it would wait; undefined while nothing was measured. */
  estimate(model: string, request: GenerationRequest): Estimate {
    const line = this.#line(model);
    const seconds = line.costs.estimate(request)?.total;
    return {
      seconds,
      peakBytes: line.costs.peakBytes(request),
      queueSeconds: this.#secondsBefore(line, line.waiting.length),
    };
  }

  /** Takes no more jobs; resolves when the accepted ones have ended. */
  drain(): Promise<void> {
    this.#draining = true;
    return new Promise((resolve) => {
      this.#idle = resolve;
      this.#settle();
    });
  }

  // The job leaves a line that it still waits in; a running one is told through its signal.
  #abandon(line: ModelQueue, job: GenerateJob): void {
    const wasPreparing = line.preparing.delete(job);
    const place = line.waiting.indexOf(job);
    if (place >= 0) line.waiting.splice(place, 1);
    else if (!wasPreparing) return;
    this.#finish(job, job.signal.reason);
    if (place >= 0) this.#tellPositions(line, place);
    this.#settle();
  }

  #enqueue(line: ModelQueue, job: GenerateJob): void {
    line.waiting.push(job);
    this.#tellPosition(line, job, line.waiting.length - 1);
    if (!line.isServed) void this.#serve(line);
  }

  async #serve(line: ModelQueue): Promise<void> {
    line.isServed = true;
    while (line.waiting.length > 0) await this.#serveNext(line);
    line.isServed = false;
    this.#settle();
  }

  async #serveNext(line: ModelQueue): Promise<void> {
    const [next] = line.waiting;
    if (line.engine.state !== 'ready') {
      line.variants = NO_VARIANTS;
      next?.emit({ $case: 'modelLoading', value: loadingEvent(line.engine.spec.model) });
      const failure: unknown = await line.engine.whenReady().then(
        () => undefined,
        (error: unknown) => error,
      );
      if (failure !== undefined) this.#failFirst(line, failure);
      // The line may be another one by now.
      return;
    }
    const jobs = this.#take(line);
    line.running = jobs;
    this.#tellPositions(line, 0);
    line.costs.observeLoaded(line.engine.residentBytes);
    const onVariants = (variants: BuiltVariants) => {
      line.variants = variants;
    };
    const errors = await runBatch(jobs, line.engine, line.costs, onVariants).catch((error: unknown) =>
      jobs.map(() => error),
    );
    line.running = [];
    // What a job failed with may have cost variants.
    if (errors.some((error) => error !== undefined)) line.variants = { ...line.variants, keys: [] };
    const again = jobs.filter((job, i) => this.#failedInCompany(job, errors[i], jobs.length));
    for (const [i, job] of jobs.entries()) if (!again.includes(job)) this.#finish(job, errors[i]);
    for (const job of again) this.#alone.add(job);
    line.waiting.unshift(...again);
  }

  /** The next job, and those that fit into its batch, in their order. */
  #take(line: ModelQueue): readonly GenerateJob[] {
    const first = this.#choose(line);
    if (first === undefined) return [];
    const others = line.waiting.filter((job) => job !== first);
    const jobs = [first];
    const limit = batchLimit(first.request, line.engine.spec.batchPixels);
    let images = first.request.seeds.length;
    for (const job of this.#alone.has(first) ? [] : others) {
      if (images + job.request.seeds.length > limit || this.#alone.has(job)) continue;
      if (batchKey(job.request) !== batchKey(first.request)) continue;
      jobs.push(job);
      images += job.request.seeds.length;
    }
    for (const job of jobs) line.waiting.splice(line.waiting.indexOf(job), 1);
    return jobs;
  }

  /** The oldest, unless it would have a variant built and there is one that would not, and has not been passed over for too long. */
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
    return waiting.find(isBuilt) ?? oldest;
  }

  // What fails a batch may be any one of its jobs: each is tried alone, so that none fails for a neighbour.
  #failedInCompany(job: GenerateJob, error: unknown, company: number): boolean {
    return error !== undefined && company > 1 && !job.signal.aborted;
  }

  #failFirst(line: ModelQueue, error: unknown): void {
    const job = line.waiting.shift();
    if (job !== undefined) this.#finish(job, error);
  }

  #finish(job: GenerateJob, error?: unknown): void {
    this.#options.onEnd(job, error);
  }

  #tellPositions(line: ModelQueue, from: number): void {
    for (const [place, job] of line.waiting.entries()) if (place >= from) this.#tellPosition(line, job, place);
  }

  #tellPosition(line: ModelQueue, job: GenerateJob, place: number): void {
    const position = place + line.running.length;
    job.emit({ $case: 'queued', value: { position, etaSeconds: this.#secondsBefore(line, place) } });
  }

  #secondsBefore(line: ModelQueue, place: number): number | undefined {
    return secondsOf([...line.running, ...line.waiting.slice(0, place)], line);
  }

  #settle(): void {
    if (this.running + this.waiting === 0) this.#idle?.();
  }

  #line(model: string): ModelQueue {
    const line = this.#lines.get(model);
    if (line !== undefined) return line;
    throw modelNotFound(model, [...this.#lines.keys()]);
  }
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

/** What is left of jobs, one after the other; undefined while nothing was measured. */
function secondsOf(jobs: readonly GenerateJob[], { costs }: ModelQueue): number | undefined {
  let sum = 0;
  for (const job of jobs) {
    const cost = costs.estimate(job.request);
    if (cost === undefined) return undefined;
    sum += cost.total * (1 - job.fraction);
  }
  return sum;
}
