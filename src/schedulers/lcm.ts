import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { alphasCumprod, noiseScheduleSchema, parseSchedulerConfig } from './noise-schedule.js';
import { cleanSample, mixNoise } from './prediction.js';
import type { Draw, Scheduler } from './scheduler.js';

const lcmSchema = noiseScheduleSchema.extend({
  original_inference_steps: z.int().min(1).default(50),
  clip_sample: z.boolean().default(false),
  clip_sample_range: z.number().positive().default(1),
  timestep_scaling: z.number().positive().default(10),
});

export type LcmConfig = z.infer<typeof lcmSchema>;

/** The options of a `scheduler_config.json` that LCM understands. */
export function readLcmConfig(config: unknown): LcmConfig {
  return parseSchedulerConfig(lcmSchema, config);
}

/** Standard deviation of the data in the boundary condition. */
const SIGMA_DATA = 0.5;

/**
 * Multistep sampling of latent consistency models: Luo et al., arXiv:2310.04378, algorithm 3. For models and LoRAs that were
 * distilled for it, with few steps and little guidance.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_lcm.py#L497
 */
export class Lcm implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #config: LcmConfig;
  readonly #alphas: Float32Array;

  constructor(name: string, config: LcmConfig, steps: number) {
    this.name = name;
    this.#config = config;
    const { original_inference_steps: original, num_train_timesteps: count } = config;
    if (steps > original) {
      throw new InferenceError('INVALID_REQUEST', `steps ${steps} must be <= ${original} for the scheduler ${name}`);
    }
    const stride = Math.floor(count / original);
    this.#alphas = alphasCumprod(config, { keepsTerminalZero: true });
    // Evenly spaced ones of the distilled timesteps, latest first.
    this.timesteps = Float32Array.from(
      { length: steps },
      (_, i) => (original - Math.floor((i * original) / steps)) * stride - 1,
    );
    const sigma = (t: number) => Math.sqrt((1 - this.#alpha(t)) / this.#alpha(t));
    this.sigmas = Float32Array.of(...Array.from(this.timesteps, sigma), 0);
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    const alpha = this.#alpha(this.timesteps[i] ?? 0);
    return mixNoise(clean, noise, Math.sqrt(alpha), Math.sqrt(1 - alpha));
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array {
    const t = this.timesteps[i] ?? 0;
    const toClean = cleanSample(this.#config.prediction_type, Math.sqrt(this.#alpha(t)), Math.sqrt(1 - this.#alpha(t)));
    const bound = this.#config.clip_sample ? this.#config.clip_sample_range : Number.POSITIVE_INFINITY;
    const scaled = t * this.#config.timestep_scaling;
    const skip = SIGMA_DATA ** 2 / (scaled ** 2 + SIGMA_DATA ** 2);
    const out = scaled / Math.sqrt(scaled ** 2 + SIGMA_DATA ** 2);
    const denoised = sample.map((x, j) => {
      const clean = toClean(modelOutput[j] ?? 0, x);
      return out * Math.min(Math.max(clean, -bound), bound) + skip * x;
    });
    const next = this.timesteps[i + 1];
    if (next === undefined) return denoised;
    const noise = draw(sample.length);
    const alpha = this.#alpha(next);
    return denoised.map((x, j) => Math.sqrt(alpha) * x + Math.sqrt(1 - alpha) * (noise[j] ?? 0));
  }

  #alpha(t: number): number {
    return this.#alphas[t] ?? 1;
  }
}
