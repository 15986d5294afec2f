import { z } from 'zod';
import { alphasCumprod, noiseScheduleSchema, parseSchedulerConfig, spacedTimesteps } from './noise-schedule.js';
import { cleanSample, mixNoise } from './prediction.js';
import type { Scheduler } from './scheduler.js';

const ddimSchema = noiseScheduleSchema.extend({
  // diffusers' default is true, which is for pixels: latents go beyond 1, and a configuration that another scheduler wrote
  // has no such field.
  clip_sample: z.boolean().default(false),
  clip_sample_range: z.number().positive().default(1),
  set_alpha_to_one: z.boolean().default(true),
});

export type DdimConfig = z.infer<typeof ddimSchema>;

/** The options of a `scheduler_config.json` that DDIM understands. */
export function readDdimConfig(config: unknown): DdimConfig {
  return parseSchedulerConfig(ddimSchema, config);
}

/**
 * DDIM without noise (eta 0): Song et al., arXiv:2010.02502, equation 12.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_ddim.py#L342
 */
export class Ddim implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #config: DdimConfig;
  readonly #alphas: Float32Array;
  /** Training timesteps from one step to the next. */
  readonly #stride: number;

  constructor(name: string, config: DdimConfig, steps: number) {
    this.name = name;
    this.#config = config;
    this.#alphas = alphasCumprod(config, { keepsTerminalZero: true });
    this.#stride = Math.floor(config.num_train_timesteps / steps);
    this.timesteps = spacedTimesteps(config, steps).map(Math.round);
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

  step(modelOutput: Float32Array, sample: Float32Array, i: number): Float32Array {
    const t = this.timesteps[i] ?? 0;
    const [alpha, sigma] = [Math.sqrt(this.#alpha(t)), Math.sqrt(1 - this.#alpha(t))];
    const next = this.#alpha(t - this.#stride);
    const toClean = cleanSample(this.#config.prediction_type, alpha, sigma);
    const bound = this.#config.clip_sample ? this.#config.clip_sample_range : Number.POSITIVE_INFINITY;
    const moved = new Float32Array(sample.length);
    for (let j = 0; j < moved.length; j += 1) {
      const [output, x] = [modelOutput[j] ?? 0, sample[j] ?? 0];
      const clean = toClean(output, x);
      const noise = this.#noise(output, x, clean, alpha, sigma);
      moved[j] = Math.sqrt(next) * Math.min(Math.max(clean, -bound), bound) + Math.sqrt(1 - next) * noise;
    }
    return moved;
  }

  // The noise that the output implies, from the clean sample before it is clipped.
  #noise(output: number, x: number, clean: number, alpha: number, sigma: number): number {
    switch (this.#config.prediction_type) {
      case 'epsilon':
        return output;
      case 'v_prediction':
        return alpha * output + sigma * x;
      case 'sample':
        return (x - alpha * clean) / sigma;
    }
  }

  #alpha(t: number): number {
    return this.#alphas[t] ?? (this.#config.set_alpha_to_one ? 1 : (this.#alphas[0] ?? 1));
  }
}
