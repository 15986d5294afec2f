import { weightedSum } from '../std/weighted-sum.js';
import { FlowEuler } from './flow-euler.js';
import { mixNoise } from './prediction.js';
import type { Draw } from './scheduler.js';

/**
 * Multistep sampling of flow models that were distilled for few steps: each step goes to the clean sample that the model predicts, and back
 * to the next noise level with fresh noise. Levels are those of Euler.
 * https://github.com/huggingface/diffusers/blob/main/src/diffusers/schedulers/scheduling_flow_match_lcm.py
 */
export class FlowLcm extends FlowEuler {
  override step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array {
    const [sigma = 0, next = 0] = this.sigmas.subarray(i, i + 2);
    const clean = weightedSum(1, sample, -sigma, modelOutput);
    return next === 0 ? clean : mixNoise(clean, draw(sample.length), 1 - next, next);
  }
}
