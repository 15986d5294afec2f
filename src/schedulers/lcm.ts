import { type ConsistencyConfig, consistencyTimesteps } from './consistency-schedule.js';
import { alphasCumprod } from './noise-schedule.js';
import { cleanSample, mixNoise } from './prediction.js';
import type { Draw, Scheduler } from './scheduler.js';

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
  readonly #config: ConsistencyConfig;
  readonly #alphas: Float32Array;

  /** @param spacing default: evenly spaced ones of the distilled timesteps */
  constructor(
    name: string,
    config: ConsistencyConfig,
    steps: number,
    spacing: Parameters<typeof consistencyTimesteps>[3] = 'distilled',
  ) {
    this.name = name;
    this.#config = config;
    this.#alphas = alphasCumprod(config, { keepsTerminalZero: true });
    this.timesteps = consistencyTimesteps(name, config, steps, spacing);
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
