import { weightedSum } from '../std/weighted-sum.js';
import { ConsistencySampler } from './consistency-schedule.js';
import { cleanSample } from './prediction.js';
import type { Draw } from './scheduler.js';

/** Standard deviation of the data in the boundary condition. */
const SIGMA_DATA = 0.5;

/**
 * Multistep sampling of latent consistency models: Luo et al., arXiv:2310.04378, algorithm 3. For models and LoRAs that were
 * distilled for it, with few steps and little guidance.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_lcm.py#L497
 */
export class Lcm extends ConsistencySampler {
  step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array {
    const t = this.timesteps[i] ?? 0;
    const toClean = cleanSample(this.config.prediction_type, Math.sqrt(this.alpha(t)), Math.sqrt(1 - this.alpha(t)));
    const bound = this.config.clip_sample ? this.config.clip_sample_range : Number.POSITIVE_INFINITY;
    const scaled = t * this.config.timestep_scaling;
    const skip = SIGMA_DATA ** 2 / (scaled ** 2 + SIGMA_DATA ** 2);
    const out = scaled / Math.sqrt(scaled ** 2 + SIGMA_DATA ** 2);
    const denoised = new Float32Array(sample.length);
    for (let j = 0; j < denoised.length; j += 1) {
      const x = sample[j] ?? 0;
      const clean = toClean(modelOutput[j] ?? 0, x);
      denoised[j] = out * Math.min(Math.max(clean, -bound), bound) + skip * x;
    }
    const next = this.timesteps[i + 1];
    if (next === undefined) return denoised;
    const noise = draw(sample.length);
    const alpha = this.alpha(next);
    return weightedSum(Math.sqrt(alpha), denoised, Math.sqrt(1 - alpha), noise);
  }
}
