import { z } from 'zod';
import { weightedSum } from '../std/weighted-sum.js';
import {
  alphasCumprod,
  noiseScheduleSchema,
  parseSchedulerConfig,
  roundHalfEven,
  spacedTimesteps,
} from './noise-schedule.js';
import { mixNoise } from './prediction.js';
import type { Scheduler } from './scheduler.js';

const pndmSchema = noiseScheduleSchema.extend({
  // A combination of predicted clean samples is not defined by the reference.
  prediction_type: z.enum(['epsilon', 'v_prediction']).default('epsilon'),
  set_alpha_to_one: z.boolean().default(false),
});

export type PndmConfig = z.infer<typeof pndmSchema>;

/** The options of a `scheduler_config.json` that PNDM understands. Runge-Kutta steps are always left out: `skip_prk_steps` is ignored. */
export function readPndmConfig(config: unknown): PndmConfig {
  return parseSchedulerConfig(pndmSchema, config);
}

/** Adams-Bashforth weights of the last model outputs, the newest first, by the number of outputs known. Row 0 is never used. */
const ADAMS_BASHFORTH: readonly (readonly number[])[] = [
  [],
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
];
const ORDER = 4;

/**
 * PNDM with linear multistep (PLMS) steps alone: Liu et al., arXiv:2202.09778, equations 9 and 12. The first step calls the
 * denoiser a second time, at its end, and is repeated with the mean of both outputs. A loop that begins later takes a first-order
 * step instead.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_pndm.py#L319
 */
export class Pndm implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #config: PndmConfig;
  readonly #alphas: Float32Array;
  /** Training timesteps from one step to the next. */
  readonly #stride: number;
  /** Outputs of the model in the last steps, the newest first. */
  #outputs: readonly Float32Array[] = [];
  /** Sample that the first step began with. */
  #begin: Float32Array | undefined;

  constructor(name: string, config: PndmConfig, steps: number) {
    this.name = name;
    this.#config = config;
    this.#alphas = alphasCumprod(config);
    this.#stride = Math.floor(config.num_train_timesteps / steps);
    const [first = 0, ...rest] = spacedTimesteps(config, steps).map(roundHalfEven);
    this.timesteps = Float32Array.of(first, ...rest.slice(0, 1), ...rest);
    const sigma = (t: number) => Math.sqrt((1 - this.#alpha(t)) / this.#alpha(t));
    this.sigmas = Float32Array.of(...Array.from(this.timesteps, sigma), 0);
  }

  addNoise(clean: Float32Array, noise: Float32Array, call: number): Float32Array {
    const alpha = this.#alpha(this.timesteps[call] ?? 0);
    return mixNoise(clean, noise, Math.sqrt(alpha), Math.sqrt(1 - alpha));
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  step(modelOutput: Float32Array, sample: Float32Array, call: number): Float32Array {
    const t = this.timesteps[call] ?? 0;
    if (call === 0) this.#begin = sample;
    if (call === 1) {
      const [first] = this.#outputs;
      if (this.#begin === undefined || first === undefined) throw new Error('call 1 without the one before');
      const mean = weightedSum(0.5, modelOutput, 0.5, first);
      // The next call is at the same timestep, and is the one that counts as the second output.
      return this.#move(mean, this.#begin, t + this.#stride, t);
    }
    this.#outputs = [modelOutput, ...this.#outputs].slice(0, ORDER);
    const outputs = this.#outputs;
    const weights = ADAMS_BASHFORTH[outputs.length] ?? [];
    const combined = new Float32Array(sample.length);
    for (let j = 0; j < combined.length; j += 1) {
      let sum = 0;
      for (let k = 0; k < outputs.length; k += 1) sum += (weights[k] ?? 0) * (outputs[k]?.[j] ?? 0);
      combined[j] = sum;
    }
    return this.#move(combined, sample, t, t - this.#stride);
  }

  // Equation 9, written as a step of DDIM with the noise that the output implies.
  #move(output: Float32Array, sample: Float32Array, from: number, to: number): Float32Array {
    const [now, next] = [this.#alpha(from), this.#alpha(to)];
    const [alpha, sigma] = [Math.sqrt(now), Math.sqrt(1 - now)];
    const keep = Math.sqrt(next) / alpha;
    const add = Math.sqrt(1 - next) - keep * sigma;
    const isNoise = this.#config.prediction_type === 'epsilon';
    const moved = new Float32Array(sample.length);
    for (let j = 0; j < moved.length; j += 1) {
      const [x, own] = [sample[j] ?? 0, output[j] ?? 0];
      moved[j] = keep * x + add * (isNoise ? own : alpha * own + sigma * x);
    }
    return moved;
  }

  /** Cumulative alpha at a timestep, also at those before the first and behind the last. */
  #alpha(t: number): number {
    if (t < 0) return this.#config.set_alpha_to_one ? 1 : (this.#alphas[0] ?? 1);
    return this.#alphas[Math.min(t, this.#alphas.length - 1)] ?? 1;
  }
}
