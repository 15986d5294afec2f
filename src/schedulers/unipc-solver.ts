import type { Level } from './multistep-schedule.js';

export interface UniPcOptions {
  readonly order: 1 | 2;
  readonly type: 'bh1' | 'bh2';
  /** Ends with a first-order step, which is stable where few steps are taken. */
  readonly lowerOrderFinal: boolean;
  /** Steps after which the sample is not corrected. */
  readonly disableCorrector: readonly number[];
}

/**
 * UniPC with B(h), multistep, predicting the clean sample: Zhao et al., arXiv:2302.04867, algorithms 5 to 8. Every step first
 * corrects the sample with the model's new output, then predicts the next one.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_unipc_multistep.py#L617
 */
export class UniPcSolver {
  readonly #levels: readonly Level[];
  readonly #options: UniPcOptions;
  /** The last two clean samples that the model predicted, the latest last. */
  #named: Float32Array[] = [];
  /** Start of the last prediction, and its order. */
  #last: { readonly sample: Float32Array; readonly order: number } | undefined;

  /** @param levels one per step, and the level where the loop ends */
  constructor(levels: readonly Level[], options: UniPcOptions) {
    this.#levels = levels;
    this.#options = options;
  }

  level(i: number): Level {
    const level = this.#levels[i];
    if (level === undefined) throw new Error(`level ${i} of ${this.#levels.length}`);
    return level;
  }

  /** Steps from level `i` to `i + 1`. @param clean the clean sample that the model predicts at level `i` */
  step(clean: Float32Array, sample: Float32Array, i: number): Float32Array {
    const { order: highest, lowerOrderFinal, disableCorrector } = this.#options;
    const last = this.#last;
    const isCorrected = last !== undefined && !disableCorrector.includes(i - 1);
    const corrected = isCorrected ? this.#correct(last.sample, clean, i, last.order) : sample;
    this.#named = [...this.#named, clean].slice(-2);
    const left = this.#levels.length - 1 - i;
    const wanted = lowerOrderFinal ? Math.min(highest, left) : highest;
    const order = Math.min(wanted, this.#named.length);
    this.#last = { sample: corrected, order };
    return this.#predict(corrected, i, order);
  }

  // From level i to i + 1.
  #predict(x: Float32Array, i: number, order: number): Float32Array {
    const [from, to] = [this.level(i), this.level(i + 1)];
    const { b, phi } = this.#integrals(from, to);
    const [before, now] = this.#lastTwo(order);
    const ratio = order === 2 ? this.#ratio(i - 1, from, to) : 1;
    const [scale, { alpha }] = [to.sigma / from.sigma, to];
    const next = new Float32Array(x.length);
    for (let j = 0; j < next.length; j += 1) {
      const m0 = now[j] ?? 0;
      const slope = order === 2 ? ((before[j] ?? 0) - m0) / ratio : 0;
      next[j] = scale * (x[j] ?? 0) - alpha * (phi * m0 + b * 0.5 * slope);
    }
    return next;
  }

  // Redo the step from level i - 1 to i with the model's output at i.
  #correct(x: Float32Array, clean: Float32Array, i: number, order: number): Float32Array {
    const [from, to] = [this.level(i - 1), this.level(i)];
    const { b, phi, rhs } = this.#integrals(from, to);
    const [before, now] = this.#lastTwo(order);
    const ratio = order === 2 ? this.#ratio(i - 2, from, to) : 1;
    // [1 1; ratio 1] rho = rhs
    const older = order === 2 ? (rhs[0] - rhs[1]) / (1 - ratio) : 0;
    const newer = order === 2 ? rhs[0] - older : 0.5;
    const [scale, { alpha }] = [to.sigma / from.sigma, to];
    const corrected = new Float32Array(x.length);
    for (let j = 0; j < corrected.length; j += 1) {
      const m0 = now[j] ?? 0;
      const slope = order === 2 ? ((before[j] ?? 0) - m0) / ratio : 0;
      const change = older * slope + newer * ((clean[j] ?? 0) - m0);
      corrected[j] = scale * (x[j] ?? 0) - alpha * (phi * m0 + b * change);
    }
    return corrected;
  }

  /** The last clean samples; a step of first order, which has no slope, takes the same one for both. */
  #lastTwo(order: number): readonly [before: Float32Array, now: Float32Array] {
    const now = this.#named.at(-1);
    const before = order === 2 ? this.#named[0] : now;
    if (now === undefined || before === undefined) throw new Error('a step without a clean sample');
    return [before, now];
  }

  // For a step of h: e^-h - 1, B(h), and the right-hand side of the corrector's equations.
  #integrals(from: Level, to: Level): { phi: number; b: number; rhs: readonly [number, number] } {
    const hh = from.lambda - to.lambda;
    const phi = Math.expm1(hh);
    const b = this.#options.type === 'bh1' ? hh : phi;
    const phi2 = phi / hh - 1;
    const phi3 = phi2 / hh - 1 / 2;
    return { phi, b, rhs: [phi2 / b, (2 * phi3) / b] };
  }

  #ratio(older: number, from: Level, to: Level): number {
    return (this.level(older).lambda - from.lambda) / (to.lambda - from.lambda);
  }
}
