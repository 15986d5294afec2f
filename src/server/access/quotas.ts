import { InferenceError } from '../../errors.js';
import { counted } from '../../std/counted.js';
import type { Caller } from './caller.js';

const MINUTE_MS = 60_000;
/** Retry delay of a token whose jobs are all in flight, in ms: nobody knows which one ends first. */
const RETRY_MS = 1000;

/** Size of a job. */
export interface JobSize {
  /** Width times height times number of images. */
  readonly pixels: number;
  /** Frames of a video; 0 for images. */
  readonly frames: number;
}

/** Holds every token to its limits. */
export class Quotas {
  /** Times of the jobs that each token started within the last minute, oldest first. */
  readonly #starts = new Map<string, number[]>();

  /** @throws InferenceError QUOTA_EXCEEDED for a job that is larger than the token may start, whenever it comes */
  assertSize({ name, limits }: Caller, { pixels, frames }: JobSize): void {
    const refuse = (what: string, value: number, limit: string, bound: number) => {
      const message = `the job has ${value} ${what}, token "${name}" may have ${bound} (${limit}); ask for less`;
      throw new InferenceError('QUOTA_EXCEEDED', message, { info: { token: name, limit, bound: String(bound) } });
    };
    if (limits.pixels !== undefined && pixels > limits.pixels) refuse('pixels', pixels, 'pixels', limits.pixels);
    if (limits.frames !== undefined && frames > limits.frames) refuse('frames', frames, 'frames', limits.frames);
  }

  /**
   * Counts a new job. Call it when nothing else can refuse the job.
   * @param inFlight jobs of the token that wait or run
   * @throws InferenceError RATE_LIMITED with a retry delay
   */
  start({ name, limits: { jobs, jobsPerMinute } }: Caller, inFlight: number): void {
    const refuse = (message: string, limit: string, bound: number, retryAfterMs: number) => {
      const info = { token: name, limit, bound: String(bound) };
      throw new InferenceError('RATE_LIMITED', message, { retryAfterMs, info });
    };
    if (jobs !== undefined && inFlight >= jobs) {
      refuse(
        `token "${name}" has ${counted(inFlight, 'job')} in flight, it may have ${jobs} (jobs); try again when one has ended`,
        'jobs',
        jobs,
        RETRY_MS,
      );
    }
    if (jobsPerMinute === undefined) return;
    // A clock that is set back must not lock anybody out.
    const now = performance.now();
    const starts = (this.#starts.get(name) ?? []).filter((time) => time > now - MINUTE_MS);
    const oldest = starts[starts.length - jobsPerMinute];
    if (oldest !== undefined) {
      refuse(
        `token "${name}" started ${counted(starts.length, 'job')} within a minute, it may start ${jobsPerMinute} (jobsPerMinute); try again later`,
        'jobsPerMinute',
        jobsPerMinute,
        Math.ceil(oldest + MINUTE_MS - now),
      );
    }
    this.#starts.set(name, [...starts, now]);
  }
}
