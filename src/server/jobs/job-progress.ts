import { Phase, type Progress } from '../../gen/darkroom/v1/event.js';
import type { ProgressEvent } from '../../pipelines/pipeline.js';

const PHASES = { encode: Phase.PHASE_ENCODE, denoise: Phase.PHASE_DENOISE, decode: Phase.PHASE_DECODE } as const;
/** Share of denoising in a job's time while nothing was measured. The rest is decode. */
const DENOISE_SHARE = 0.9;

/** Seconds that the cost model expects. */
export interface Expected {
  readonly denoise: number;
  readonly decode: number;
  readonly total: number;
}

/** Turns engine progress into a fraction of the whole job, which never falls, and a remaining time. */
export class ProgressMeter {
  readonly #expected: Expected | undefined;
  readonly #denoiseShare: number;
  #denoised = 0;
  #decoded = 0;
  #fraction = 0;
  /** Time and fraction after the first denoising step: the speed is measured from there. */
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
