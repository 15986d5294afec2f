import type { EngineEvent } from '../engine/messages.js';
import { Phase, type Progress } from '../gen/darkroom/v1/event.js';
import type { ImageRequest } from '../pipelines/pipeline.js';

export type ProgressEvent = Extract<EngineEvent, { kind: 'progress' }>;

const PHASES = { encode: Phase.PHASE_ENCODE, denoise: Phase.PHASE_DENOISE, decode: Phase.PHASE_DECODE } as const;
/** Of a picture's time, what goes to its denoising; the rest is its decode. */
const DENOISE_SHARE = 0.9;

/** Turns the engine's steps into a fraction of the whole job that never falls, and a time to go. */
export class ProgressMeter {
  readonly #steps: number;
  readonly #images: number;
  #fraction = 0;
  /** The first denoising step: when it was done and how far the job was then. The speed is measured from there. */
  #first: { readonly atMs: number; readonly fraction: number } | undefined;

  constructor({ steps, seeds }: ImageRequest) {
    this.#steps = steps;
    this.#images = seeds.length;
  }

  advance({ phase, step, total }: ProgressEvent, nowMs: number): Progress {
    this.#fraction = Math.max(this.#fraction, this.#picturesDone(phase, step) / this.#images);
    const etaSeconds = this.#secondsToGo(nowMs);
    if (phase === 'denoise') this.#first ??= { atMs: nowMs, fraction: this.#fraction };
    return { phase: PHASES[phase], step, total, fraction: this.#fraction, etaSeconds };
  }

  #picturesDone(phase: ProgressEvent['phase'], step: number): number {
    if (phase === 'encode') return 0;
    if (phase === 'decode') return step;
    const before = Math.floor((step - 1) / this.#steps);
    return before + (DENOISE_SHARE * (step - before * this.#steps)) / this.#steps;
  }

  #secondsToGo(nowMs: number): number | undefined {
    const first = this.#first;
    if (first === undefined || this.#fraction <= first.fraction) return undefined;
    const msPerFraction = (nowMs - first.atMs) / (this.#fraction - first.fraction);
    return (msPerFraction * (1 - this.#fraction)) / 1000;
  }
}
