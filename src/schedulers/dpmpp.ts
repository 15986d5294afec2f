import { z } from 'zod';
import { weightedSum } from '../std/weighted-sum.js';
import { type Level, multistepSchedule, multistepSchema } from './multistep-schedule.js';
import { parseSchedulerConfig } from './noise-schedule.js';
import { cleanSamples, mixNoise } from './prediction.js';
import type { Draw, Scheduler } from './scheduler.js';

const dpmSchema = multistepSchema.extend({
  solver_order: z.int().min(1).max(2).default(2),
  euler_at_final: z.boolean().default(false),
});

export type DpmConfig = z.infer<typeof dpmSchema>;

/** The options of a `scheduler_config.json` that DPM-Solver++ understands. */
export function readDpmConfig(config: unknown): DpmConfig {
  return parseSchedulerConfig(dpmSchema, config);
}

/** With fewer steps than this the last step is first order. */
const FEW_STEPS = 15;

export interface DpmOptions {
  /** Adds the noise of the stochastic variant. */
  readonly sde?: boolean;
  /** Largest number of clean samples that a step takes into account. */
  readonly order?: 2 | 3;
}

/**
 * DPM-Solver++ of second or third order, multistep, midpoint: Lu et al., arXiv:2211.01095, algorithm 2.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_dpmsolver_multistep.py#L689
 */
export class DpmPp implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #config: DpmConfig;
  readonly #sde: boolean;
  readonly #order: 2 | 3;
  readonly #levels: readonly Level[];
  /** Clean samples that the model predicted in the steps before, the newest first. */
  #before: readonly Float32Array[] = [];

  constructor(name: string, config: DpmConfig, steps: number, { sde = false, order = 2 }: DpmOptions = {}) {
    this.name = name;
    this.#config = config;
    this.#sde = sde;
    this.#order = order;
    const { timesteps, sigmas, levels } = multistepSchedule(config, steps);
    this.timesteps = timesteps;
    this.sigmas = sigmas;
    this.#levels = levels;
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    const { alpha = 1, sigma = 0 } = this.#levels[i] ?? {};
    return mixNoise(clean, noise, alpha, sigma);
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array {
    const [from, to] = [this.#levels[i], this.#levels[i + 1]];
    if (from === undefined || to === undefined) throw new Error(`step ${i} of ${this.timesteps.length}`);
    const clean = cleanSamples(this.#config.prediction_type, from, modelOutput, sample);
    const known = [clean, ...this.#before];
    this.#before = known.slice(0, this.#order - 1);

    // The stochastic variant solves the same with twice the step.
    const h = to.lambda - from.lambda;
    const scaled = this.#sde ? 2 * h : h;
    const decay = Math.exp(-scaled);
    const keep = (to.sigma / from.sigma) * (this.#sde ? Math.exp(-h) : 1);
    const used = known.slice(0, this.orderOf(i));
    const weights = this.weights(i, h, scaled, used.length);
    const next = new Float32Array(sample.length);
    for (let j = 0; j < next.length; j += 1) {
      let mixed = 0;
      for (let k = 0; k < used.length; k += 1) mixed += (weights[k] ?? 0) * (used[k]?.[j] ?? 0);
      next[j] = keep * (sample[j] ?? 0) + to.alpha * mixed;
    }
    if (!this.#sde) return next;
    const noise = draw(sample.length);
    const spread = to.sigma * Math.sqrt(1 - decay);
    return weightedSum(1, next, spread, noise);
  }

  /**
   * What the last clean samples count for, the newest first: the integral of the polynomial through them, from its value and its
   * differences over the steps.
   */
  protected weights(i: number, h: number, scaled: number, order: number): readonly number[] {
    const gain = 1 - Math.exp(-scaled);
    const r0 = this.ratio(i - 1, h);
    if (order === 1) return [gain];
    // Half the slope, over the ratio of the last two steps.
    if (order === 2) return [gain * (1 + 0.5 / r0), (-gain * 0.5) / r0];
    const r1 = this.ratio(i - 2, h);
    const [first, second] = [1 - gain / scaled, (gain - scaled) / scaled ** 2 + 0.5];
    // Both differences by the clean samples that they are made of.
    const slope = [1 / r0, -1 / r0, 0];
    const earlier = [0, 1 / r1, -1 / r1];
    const bend = slope.map((value, k) => value - (earlier[k] ?? 0));
    return [gain, 0, 0].map((value, k) => {
      const d1 = (slope[k] ?? 0) + (r0 / (r0 + r1)) * (bend[k] ?? 0);
      const d2 = (bend[k] ?? 0) / (r0 + r1);
      return value + first * d1 + second * d2;
    });
  }

  /** Step `i` in log SNR, in that of `h`. */
  protected ratio(i: number, h: number): number {
    const [from, to] = [this.#levels[i], this.#levels[i + 1]];
    return ((to?.lambda ?? 0) - (from?.lambda ?? 0)) / h;
  }

  /** Order of a step: those at the beginning know fewer clean samples, and those at the end of a short schedule use fewer. */
  protected orderOf(i: number): number {
    if (this.#endsInFirstOrder(i)) return 1;
    const steps = this.timesteps.length;
    const isSecondLast = i === steps - 2 && this.#config.lower_order_final && steps < FEW_STEPS;
    return isSecondLast ? 2 : this.#order;
  }

  #endsInFirstOrder(i: number): boolean {
    const { solver_order, lower_order_final, euler_at_final, final_sigmas_type } = this.#config;
    if (solver_order === 1) return true;
    const steps = this.timesteps.length;
    const isLast = i === steps - 1;
    return isLast && (euler_at_final || (lower_order_final && steps < FEW_STEPS) || final_sigmas_type === 'zero');
  }
}
