/** What samplers of consistency models share: their configuration, the timesteps that they were distilled for, and their noise. */
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { alphasCumprod, noiseScheduleSchema, parseSchedulerConfig, spacedTimesteps } from './noise-schedule.js';
import { mixNoise } from './prediction.js';
import type { Draw, Scheduler } from './scheduler.js';

const consistencySchema = noiseScheduleSchema.extend({
  original_inference_steps: z.int().min(1).default(50),
  clip_sample: z.boolean().default(false),
  clip_sample_range: z.number().positive().default(1),
  timestep_scaling: z.number().positive().default(10),
});

export type ConsistencyConfig = z.infer<typeof consistencySchema>;

type ConsistencySpacing = 'distilled' | 'trailing';

/** The options of a `scheduler_config.json` that samplers of consistency models understand. */
export function readConsistencyConfig(config: unknown): ConsistencyConfig {
  return parseSchedulerConfig(consistencySchema, config);
}

/**
 * Timesteps of few steps. With `trailing` they are spaced back from the last training timestep, as DMD2 is sampled; otherwise they are
 * evenly spaced ones of the distilled timesteps.
 * @param name of the scheduler, for messages
 * @throws InferenceError INVALID_REQUEST for more steps than there are distilled timesteps
 */
function consistencyTimesteps(
  name: string,
  config: ConsistencyConfig,
  steps: number,
  spacing: ConsistencySpacing,
): Float32Array {
  const { original_inference_steps: original, num_train_timesteps: count } = config;
  if (steps > original)
    throw new InferenceError('INVALID_REQUEST', `steps ${steps} must be <= ${original} for the scheduler ${name}`);
  if (spacing === 'trailing') return spacedTimesteps({ ...config, timestep_spacing: 'trailing' }, steps);
  const stride = Math.floor(count / original);
  return Float32Array.from({ length: steps }, (_, i) => (original - Math.floor((i * original) / steps)) * stride - 1);
}

/** A sampler of consistency models: samples keep their variance, and each step ends in one of the model's own timesteps. */
export abstract class ConsistencySampler implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  protected readonly config: ConsistencyConfig;
  readonly #alphas: Float32Array;

  /** @param spacing default: evenly spaced ones of the distilled timesteps */
  constructor(name: string, config: ConsistencyConfig, steps: number, spacing: ConsistencySpacing = 'distilled') {
    this.name = name;
    this.config = config;
    this.#alphas = alphasCumprod(config, { keepsTerminalZero: true });
    this.timesteps = consistencyTimesteps(name, config, steps, spacing);
    const sigma = (t: number) => Math.sqrt((1 - this.alpha(t)) / this.alpha(t));
    this.sigmas = Float32Array.of(...Array.from(this.timesteps, sigma), 0);
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    const alpha = this.alpha(this.timesteps[i] ?? 0);
    return mixNoise(clean, noise, Math.sqrt(alpha), Math.sqrt(1 - alpha));
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  abstract step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array;

  /** Cumulative alpha at a timestep. */
  protected alpha(t: number): number {
    return this.#alphas[t] ?? 1;
  }
}
