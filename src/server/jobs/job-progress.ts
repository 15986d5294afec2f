import { Phase, type Progress } from '../../gen/darkroom/v1/event.js';
import type { ProgressEvent } from '../../pipelines/pipeline.js';

const PHASES = { encode: Phase.PHASE_ENCODE, denoise: Phase.PHASE_DENOISE, decode: Phase.PHASE_DECODE } as const;
/** Of a job's time, what goes to its denoising while nothing was measured; the rest is its decode. */
const DENOISE_SHARE = 0.9;

/** What the cost model expects of a job, in seconds. */
export interface Expected {
  readonly denoise: number;
  readonly decode: number;
  readonly total: number;
}

/** Turns the engine's steps into a fraction of the whole job that never falls, and a time to go. */
export class ProgressMeter {
  readonly #expected: Expected | undefined;
  readonly #denoiseShare: number;
  #denoised = 0;
  #decoded = 0;
  #fraction = 0;
  /** The first denoising step: when it was done and how far the job was then. The speed is measured from there. */
  #first: { readonly atMs: number; readonly fraction: number } | undefined;

  constructor(expected?: Expected) {
    this.#expected = expected;
    const work = expected === undefined ? 0 : expected.denoise + expected.decode;
    this.#denoiseShare = expected === undefined || work <= 0 ? DENOISE_SHARE : expected.denoise / work;
  }

  advance({ phase, step, total }: ProgressEvent, nowMs: number): Progress {
    if (phase === 'denoise') this.#denoised = step / total;
    if (phase === 'decode') this.#decoded = step / total;
    const done = this.#denoiseShare * this.#denoised + (1 - this.#denoiseShare) * this.#decoded;
    this.#fraction = Math.max(this.#fraction, this.#decoded === 1 ? 1 : done);
    const etaSeconds = this.#secondsToGo(nowMs);
    if (phase === 'denoise') this.#first ??= { atMs: nowMs, fraction: this.#fraction };
    return { phase: PHASES[phase], step, total, fraction: this.#fraction, etaSeconds };
  }

  #secondsToGo(nowMs: number): number | undefined {
    const first = this.#first;
    if (first === undefined || this.#fraction <= first.fraction) {
      return this.#expected && this.#expected.total * (1 - this.#fraction);
    }
    const msPerFraction = (nowMs - first.atMs) / (this.#fraction - first.fraction);
    return (msPerFraction * (1 - this.#fraction)) / 1000;
  }
}
