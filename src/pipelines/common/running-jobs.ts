import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Phase, PipelineEvent, PipelineJob } from '../pipeline.js';

/** Which jobs go on, and how far each is. */
export class RunningJobs {
  readonly #jobs: readonly PipelineJob[];
  readonly #ended = new Set<number>();
  readonly #steps = new Map<string, number>();
  readonly #pictures = new Map<number, number>();
  readonly #forwards = new Map<number, number>();

  constructor(jobs: readonly PipelineJob[]) {
    this.#jobs = jobs;
  }

  /** Lets messages in (a run blocks the thread, a cancel waits outside), then ends the jobs that were told to. */
  async *look(): AsyncGenerator<PipelineEvent, void, undefined> {
    await nextTurn();
    for (const [job, { signal }] of this.#jobs.entries()) {
      if (!signal.aborted || this.#ended.has(job)) continue;
      this.#ended.add(job);
      yield { job, kind: 'aborted' };
    }
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

  /** Counts a finished picture. @returns whether it was the job's last one */
  endsWithPicture(job: number): boolean {
    const done = (this.#pictures.get(job) ?? 0) + 1;
    this.#pictures.set(job, done);
    const isLast = done === this.#jobs[job]?.request.seeds.length;
    if (isLast) this.#ended.add(job);
    return isLast;
  }
}
