import { weightedSum } from '../std/weighted-sum.js';
import { type ConsistencyConfig, ConsistencySampler } from './consistency-schedule.js';
import { cleanSample } from './prediction.js';
import type { Draw } from './scheduler.js';

/** Share of a step that is taken back by noise: gamma in the paper, eta in diffusers, whose default it is. */
const ETA = 0.3;

/**
 * Strategic stochastic sampling of trajectory consistency models: Zheng et al., arXiv:2402.19159, algorithm 4. For LoRAs that were
 * distilled for it (TCD, Hyper-SD), with few steps and no guidance.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_tcd.py#L538
 */
export class Tcd extends ConsistencySampler {
  step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array {
    const { prediction_type: prediction, clip_sample: clips, clip_sample_range: range } = this.config;
    const now = this.alpha(this.timesteps[i] ?? 0);
    const next = this.timesteps[i + 1] ?? 0;
    const [after, between] = [this.alpha(next), this.alpha(Math.floor((1 - ETA) * next))];
    const toClean = cleanSample(prediction, Math.sqrt(now), Math.sqrt(1 - now));
    const bound = clips ? range : Number.POSITIVE_INFINITY;
    // 1. down, beyond the next timestep
    const moved = new Float32Array(sample.length);
    for (let j = 0; j < moved.length; j += 1) {
      const [output, x] = [modelOutput[j] ?? 0, sample[j] ?? 0];
      const clean = Math.min(Math.max(toClean(output, x), -bound), bound);
      moved[j] = Math.sqrt(between) * clean + Math.sqrt(1 - between) * noiseOf(prediction, output, x, now);
    }
    if (i + 1 >= this.timesteps.length) return moved;
    // 2. back up to it, by noise
    const [keep, add] = [Math.sqrt(after / between), Math.sqrt(1 - after / between)];
    const noise = draw(sample.length);
    return weightedSum(keep, moved, add, noise);
  }
}

/** Noise that the model's output implies. */
function noiseOf(prediction: ConsistencyConfig['prediction_type'], output: number, x: number, alpha: number): number {
  switch (prediction) {
    case 'epsilon':
      return output;
    case 'sample':
      return (x - Math.sqrt(alpha) * output) / Math.sqrt(1 - alpha);
    case 'v_prediction':
      return Math.sqrt(alpha) * output + Math.sqrt(1 - alpha) * x;
  }
}
