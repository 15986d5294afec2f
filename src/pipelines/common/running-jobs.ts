import { setImmediate as nextTurn } from 'node:timers/promises';
import { allAborted } from '../../std/when-aborted.js';
import type { Phase, PipelineEvent, PipelineJob } from '../pipeline.js';

/** The jobs of one call of a pipeline: which of them are alive, and the progress of each. */
export class RunningJobs {
  readonly #jobs: readonly PipelineJob[];
  readonly #ended = new Set<number>();
  readonly #steps = new Map<string, number>();
  readonly #images = new Map<number, number>();
  readonly #forwards = new Map<number, number>();

  constructor(jobs: readonly PipelineJob[]) {
    this.#jobs = jobs;
  }

  /** Lets messages in (a run may block the thread, so a cancel waits outside), then ends the jobs that were cancelled. */
  async *checkCancelled(): AsyncGenerator<PipelineEvent, void, undefined> {
    await nextTurn();
    for (const [job, { signal }] of this.#jobs.entries()) {
      if (!signal.aborted || this.#ended.has(job)) continue;
      this.#ended.add(job);
      yield { job, kind: 'aborted' };
    }
  }

  /**
   * A part of the work for some jobs. Its signal is aborted when all of them are cancelled; a run that the signal ends, ends the part,
   * and the call goes on for other jobs.
   * @returns undefined for a part that ended so
   */
  async *untilCancelled<T>(
    jobs: readonly number[],
    part: (signal: AbortSignal) => AsyncGenerator<PipelineEvent, T, undefined>,
  ): AsyncGenerator<PipelineEvent, T | undefined, undefined> {
    const signal = allAborted(jobs.flatMap((job) => this.#jobs[job]?.signal ?? []));
    try {
      return yield* part(signal);
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
      yield* this.checkCancelled();
      return undefined;
    }
  }

  /** Aborted when the job is cancelled. */
  signalOf(job: number): AbortSignal {
    return this.#jobs[job]?.signal ?? AbortSignal.abort();
  }

  isAlive(job: number): boolean {
    return !this.#ended.has(job);
  }

  alive<T extends { readonly job: number }>(of: readonly T[]): readonly T[] {
    return of.filter(({ job }) => this.isAlive(job));
  }

  advance(job: number, phase: Phase, by: number, total: number): PipelineEvent {
    const step = (this.#steps.get(`${job} ${phase}`) ?? 0) + by;
    this.#steps.set(`${job} ${phase}`, step);
    return { job, kind: 'progress', phase, step, total };
  }

  countForwards(job: number, by: number): void {
    this.#forwards.set(job, this.forwards(job) + by);
  }

  /** Runs of the denoiser that were counted for the job. */
  forwards(job: number): number {
    return this.#forwards.get(job) ?? 0;
  }

  /** Counts a finished image, or a video. @returns true if it was the job's last one */
  finishImage(job: number): boolean {
    const done = (this.#images.get(job) ?? 0) + 1;
    this.#images.set(job, done);
    const isLast = done === this.#jobs[job]?.request.seeds.length;
    if (isLast) this.#ended.add(job);
    return isLast;
  }
}
