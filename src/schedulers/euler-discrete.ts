import { z } from 'zod';
import {
  alphasCumprod,
  betaSigmas,
  exponentialSigmas,
  interpolate,
  karrasSigmas,
  linspace,
  noiseScheduleSchema,
  parseSchedulerConfig,
  spacedTimesteps,
  timestepOfSigma,
  trainingSigmas,
} from './noise-schedule.js';
import type { Draw, Scheduler } from './scheduler.js';

const eulerSchema = noiseScheduleSchema.extend({
  interpolation_type: z.enum(['linear', 'log_linear']).default('linear'),
  use_karras_sigmas: z.boolean().nullish(),
  use_exponential_sigmas: z.boolean().nullish(),
  use_beta_sigmas: z.boolean().nullish(),
  sigma_min: z.number().positive().nullish(),
  sigma_max: z.number().positive().nullish(),
  timestep_type: z.enum(['discrete', 'continuous']).default('discrete'),
  final_sigmas_type: z.enum(['zero', 'sigma_min']).default('zero'),
});

export type EulerConfig = z.infer<typeof eulerSchema>;

/** The options of a `scheduler_config.json` that Euler understands; it ignores those of other samplers. */
export function readEulerConfig(config: unknown): EulerConfig {
  return parseSchedulerConfig(eulerSchema, config);
}

/**
 * Euler steps along the probability flow, as diffusers' EulerDiscreteScheduler takes them: Karras et al., arXiv:2206.00364,
 * algorithm 1 without second order.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_euler_discrete.py#L135
 */
export class EulerDiscrete implements Scheduler {
  readonly name: string;
  /** Samplers of second order replace both by those of their calls. */
  timesteps: Float32Array;
  sigmas: Float32Array;
  readonly initNoiseSigma: number;
  /** Logarithms of the noise levels of the training timesteps. */
  protected readonly logSigmas: Float32Array;
  readonly #prediction: EulerConfig['prediction_type'];

  constructor(name: string, config: EulerConfig, steps: number) {
    this.name = name;
    this.#prediction = config.prediction_type;
    const training = trainingSigmas(alphasCumprod(config));
    const logSigmas = training.map(Math.log);
    this.logSigmas = logSigmas;
    const spaced = spacedTimesteps(config, steps);
    const levels = stepSigmas(config, training, spaced);
    const isRemapped = Boolean(config.use_karras_sigmas || config.use_exponential_sigmas || config.use_beta_sigmas);
    const discrete = isRemapped ? Float32Array.from(levels, (sigma) => timestepOfSigma(sigma, logSigmas)) : spaced;
    const isContinuous = config.timestep_type === 'continuous' && config.prediction_type === 'v_prediction';
    this.timesteps = isContinuous ? discrete.map((_, i) => 0.25 * Math.log(levels[i] ?? 0)) : discrete;
    const end = config.final_sigmas_type === 'zero' ? 0 : (training[0] ?? 0);
    this.sigmas = Float32Array.of(...levels, end).slice(0, steps + 1);
    const max = this.sigmas.reduce((largest, sigma) => Math.max(largest, sigma), 0);
    // With leading spacing the first level is below the training maximum, and the noise is scaled for both.
    this.initNoiseSigma = config.timestep_spacing === 'leading' ? Math.sqrt(max ** 2 + 1) : max;
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    return advance(clean, noise, this.#sigma(i));
  }

  scaleModelInput(sample: Float32Array, i: number): Float32Array {
    const divisor = Math.sqrt(this.#sigma(i) ** 2 + 1);
    const scaled = new Float32Array(sample.length);
    for (let j = 0; j < scaled.length; j += 1) scaled[j] = (sample[j] ?? 0) / divisor;
    return scaled;
  }

  step(modelOutput: Float32Array, sample: Float32Array, i: number, _draw: Draw): Float32Array {
    return this.move(modelOutput, sample, this.#sigma(i), this.#sigma(i + 1));
  }

  /** Along the flow's tangent, from one noise level to another. */
  protected move(modelOutput: Float32Array, sample: Float32Array, from: number, to: number): Float32Array {
    return advance(sample, this.derivative(modelOutput, sample, from), Math.fround(to - from));
  }

  /** Tangent of the flow at a noise level. Rounded to float32 after every operation, as torch does: at a sigma of thousands it shows. */
  protected derivative(modelOutput: Float32Array, sample: Float32Array, sigma: number): Float32Array {
    const clean = this.denoise(modelOutput, sample, sigma);
    const tangent = new Float32Array(sample.length);
    for (let j = 0; j < tangent.length; j += 1) tangent[j] = Math.fround((sample[j] ?? 0) - (clean[j] ?? 0)) / sigma;
    return tangent;
  }

  /** Clean sample that the model's output implies at a noise level. */
  protected denoise(modelOutput: Float32Array, sample: Float32Array, sigma: number): Float32Array {
    const denoised = denoiser(this.#prediction, sigma);
    const clean = new Float32Array(sample.length);
    for (let j = 0; j < clean.length; j += 1) clean[j] = denoised(modelOutput[j] ?? 0, sample[j] ?? 0);
    return clean;
  }

  #sigma(i: number): number {
    return this.sigmas[i] ?? 0;
  }
}

/** `sample` moved along `derivative` by a difference of noise levels. */
export function advance(sample: Float32Array, derivative: Float32Array, dt: number): Float32Array {
  const moved = new Float32Array(sample.length);
  for (let j = 0; j < moved.length; j += 1) moved[j] = (sample[j] ?? 0) + Math.fround((derivative[j] ?? 0) * dt);
  return moved;
}

/** Clean sample that the model's output implies, in float32 operations. */
function denoiser(prediction: EulerConfig['prediction_type'], sigma: number): (output: number, x: number) => number {
  switch (prediction) {
    case 'epsilon':
      return (output, x) => Math.fround(x - Math.fround(sigma * output));
    case 'sample':
      return (output) => output;
    case 'v_prediction': {
      const variance = Math.fround(Math.fround(sigma ** 2) + 1);
      const outputScale = Math.fround(-sigma / Math.fround(Math.sqrt(variance)));
      return (output, x) => Math.fround(Math.fround(output * outputScale) + Math.fround(x / variance));
    }
  }
}

// Noise levels of the steps, from noise to image.
function stepSigmas(config: EulerConfig, training: Float32Array, timesteps: Float32Array): Float64Array {
  const steps = timesteps.length;
  const [smallest = 0, largest = 0] = [training[0], training.at(-1)];
  const spaced =
    config.interpolation_type === 'linear'
      ? Float64Array.from(timesteps, (t) => interpolate(training, t))
      : // One level more than steps, where the loop ends: the reference appends its final sigma behind it, unused.
        linspace(Math.log(largest), Math.log(smallest), steps + 1).map(Math.exp);
  const max = config.sigma_max ?? spaced[0] ?? largest;
  const min = config.sigma_min ?? spaced.at(-1) ?? smallest;
  if (config.use_karras_sigmas) return karrasSigmas(max, min, steps);
  if (config.use_exponential_sigmas) return exponentialSigmas(max, min, steps);
  if (config.use_beta_sigmas) return betaSigmas(max, min, steps);
  return spaced;
}
