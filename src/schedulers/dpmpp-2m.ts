import { z } from 'zod';
import { type Level, multistepSchedule, multistepSchema } from './multistep-schedule.js';
import { parseSchedulerConfig } from './noise-schedule.js';
import { cleanSample, mixNoise } from './prediction.js';
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

/**
 * DPM-Solver++ of second order, multistep, midpoint: Lu et al., arXiv:2211.01095, algorithm 2; `sde` adds the noise of its
 * stochastic variant.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_dpmsolver_multistep.py#L689
 */
export class DpmPp2m implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #config: DpmConfig;
  readonly #sde: boolean;
  readonly #levels: readonly Level[];
  /** Clean sample that the model predicted in the step before. */
  #before: Float32Array | undefined;

  constructor(name: string, config: DpmConfig, steps: number, { sde = false } = {}) {
    this.name = name;
    this.#config = config;
    this.#sde = sde;
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
    const [last, from, to] = [this.#levels[i - 1], this.#levels[i], this.#levels[i + 1]];
    if (from === undefined || to === undefined) throw new Error(`step ${i} of ${this.timesteps.length}`);
    const toClean = cleanSample(this.#config.prediction_type, from.alpha, from.sigma);
    const clean = sample.map((x, j) => toClean(modelOutput[j] ?? 0, x));
    const before = this.#before;
    this.#before = clean;

    const h = to.lambda - from.lambda;
    const decay = this.#sde ? Math.exp(-2 * h) : Math.exp(-h);
    const keep = (to.sigma / from.sigma) * (this.#sde ? Math.exp(-h) : 1);
    const gain = to.alpha * (1 - decay);
    // Second order: half the slope of the clean sample, over the ratio of the last two steps.
    const isSecondOrder = before !== undefined && last !== undefined && !this.#endsInFirstOrder(i);
    const slope = isSecondOrder ? (0.5 * h) / (from.lambda - last.lambda) : 0;
    const next = sample.map((x, j) => {
      const now = clean[j] ?? 0;
      return keep * x + gain * (now + (isSecondOrder ? slope * (now - (before[j] ?? 0)) : 0));
    });
    if (!this.#sde) return next;
    const noise = draw(sample.length);
    const spread = to.sigma * Math.sqrt(1 - decay);
    return next.map((x, j) => x + spread * (noise[j] ?? 0));
  }

  #endsInFirstOrder(i: number): boolean {
    const { solver_order, lower_order_final, euler_at_final, final_sigmas_type } = this.#config;
    if (solver_order === 1) return true;
    const steps = this.timesteps.length;
    const isLast = i === steps - 1;
    return isLast && (euler_at_final || (lower_order_final && steps < FEW_STEPS) || final_sigmas_type === 'zero');
  }
}
