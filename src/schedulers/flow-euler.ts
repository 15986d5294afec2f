import { weightedSum } from '../std/weighted-sum.js';
import type { FlowSchedule } from './flow-schedule.js';
import { mixNoise } from './prediction.js';
import type { Draw, Scheduler } from './scheduler.js';

/**
 * Euler steps along a straight flow: x moves by the model's velocity times the change of sigma.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_flow_match_euler_discrete.py#L374
 */
export class FlowEuler implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;

  constructor(name: string, { timesteps, sigmas }: FlowSchedule) {
    this.name = name;
    this.timesteps = timesteps;
    this.sigmas = sigmas;
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    const sigma = this.sigmas[i] ?? 0;
    return mixNoise(clean, noise, 1 - sigma, sigma);
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  step(modelOutput: Float32Array, sample: Float32Array, i: number, _draw?: Draw): Float32Array {
    const dt = (this.sigmas[i + 1] ?? 0) - (this.sigmas[i] ?? 0);
    return weightedSum(1, sample, dt, modelOutput);
  }
}
