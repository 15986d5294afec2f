import type { Supervisor } from '../engine/supervisor.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';
import type { Job } from './job.js';
import { runJob } from './run-job.js';
import { hideInternals } from './status.js';

/** How much the last job's time counts in the estimate of the next. */
const SMOOTHING = 0.3;
/** What a client that found the queue full is told to wait when nothing is known yet. */
const FIRST_RETRY_MS = 1000;

interface Line {
  readonly engine: Supervisor;
  readonly waiting: Job[];
  running: Job | undefined;
  /** Smoothed seconds of a job. */
  seconds: number | undefined;
}

export interface AdmissionOptions {
  readonly engines: readonly Supervisor[];
  /** Most jobs that wait or run at once, over all models. */
  readonly limit: number;
  readonly log: Logger;
  /** Called once for every job that was admitted, when it ended. */
  readonly onEnd: (job: Job) => void;
}

/** A bounded line of jobs before every model; one runs at a time, in the order they came. */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #lines: ReadonlyMap<string, Line>;
  #draining = false;
  #idle: (() => void) | undefined;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#lines = new Map(
      options.engines.map((engine) => [
        engine.spec.model,
        { engine, waiting: [], running: undefined, seconds: undefined },
      ]),
    );
  }

  get draining(): boolean {
    return this.#draining;
  }

  get running(): number {
    return [...this.#lines.values()].filter(({ running }) => running !== undefined).length;
  }

  get waiting(): number {
    return [...this.#lines.values()].reduce((sum, { waiting }) => sum + waiting.length, 0);
  }

  /** @throws InferenceError DRAINING or QUEUE_FULL, both with a time to try again; the model's failure if it cannot start */
  assertRoom(model: string): void {
    const line = this.#line(model);
    if (this.#draining) {
      throw new InferenceError(
        'DRAINING',
        'the server is draining and takes no more jobs; try again elsewhere or later',
        {
          retryAfterMs: 5000,
        },
      );
    }
    if (line.engine.failure !== undefined && line.engine.state === 'failed') throw line.engine.failure;
    if (this.running + this.waiting < this.#options.limit) return;
    throw new InferenceError(
      'QUEUE_FULL',
      `the queue holds ${this.#options.limit} jobs, its limit; try again later or raise LIMIT_QUEUE`,
      { retryAfterMs: line.seconds === undefined ? FIRST_RETRY_MS : Math.max(100, line.seconds * 1000) },
    );
  }

  /** Puts a job into its model's line; `assertRoom` was called before, in the same turn. */
  submit(job: Job): void {
    const line = this.#line(job.model);
    line.waiting.push(job);
    job.signal.addEventListener('abort', () => this.#abandon(line, job), { once: true });
    this.#tellPosition(line, job, line.waiting.length - 1);
    void this.#pump(line);
  }

  /** Takes no more jobs; resolves when the accepted ones have ended. */
  drain(): Promise<void> {
    this.#draining = true;
    return new Promise((resolve) => {
      this.#idle = resolve;
      this.#settle();
    });
  }

  /** Ends every job that has not ended. */
  cancelAll(reason: InferenceError): void {
    for (const { waiting, running } of this.#lines.values()) {
      for (const job of [...waiting, ...(running ? [running] : [])]) job.cancel(reason);
    }
  }

  // The job leaves a line that it still waits in; a running one is told through its signal.
  #abandon(line: Line, job: Job): void {
    const place = line.waiting.indexOf(job);
    if (place < 0) return;
    line.waiting.splice(place, 1);
    this.#finish(job, job.signal.reason);
    this.#tellPositions(line, place);
  }

  async #pump(line: Line): Promise<void> {
    if (line.running !== undefined) return;
    const job = line.waiting.shift();
    if (job === undefined) return this.#settle();
    line.running = job;
    this.#tellPositions(line, 0);
    const error = await runJob(job, line.engine).then(
      () => undefined,
      (caught: unknown) => caught ?? new Error('a job ended with nothing'),
    );
    line.running = undefined;
    if (error === undefined) this.#learn(line, job);
    this.#finish(job, error);
    void this.#pump(line);
  }

  #finish(job: Job, error?: unknown): void {
    const { log, onEnd } = this.#options;
    if (error !== undefined) job.fail(hideInternals(InferenceError.from(error), log));
    const ms = Date.now() - job.createTime.getTime();
    log.info(
      { jobId: job.id, model: job.model, ms, images: job.assets.length, reason: job.error?.reason },
      'job ended',
    );
    onEnd(job);
  }

  #learn(line: Line, job: Job): void {
    const seconds = (Date.now() - (job.startTime ?? job.createTime).getTime()) / 1000;
    line.seconds = line.seconds === undefined ? seconds : line.seconds + SMOOTHING * (seconds - line.seconds);
  }

  #tellPositions(line: Line, from: number): void {
    for (const [place, job] of line.waiting.entries()) if (place >= from) this.#tellPosition(line, job, place);
  }

  #tellPosition(line: Line, job: Job, place: number): void {
    const position = place + (line.running === undefined ? 0 : 1);
    const etaSeconds = line.seconds === undefined ? undefined : position * line.seconds;
    job.emit({ $case: 'queued', value: { position, etaSeconds } });
  }

  #settle(): void {
    if (this.running + this.waiting === 0) this.#idle?.();
  }

  #line(model: string): Line {
    const line = this.#lines.get(model);
    if (line !== undefined) return line;
    const known = [...this.#lines.keys()].join(', ') || 'none';
    throw new InferenceError(
      'MODEL_NOT_FOUND',
      `model "${model.slice(0, 64)}" is not served; this server has: ${known}`,
    );
  }
}
