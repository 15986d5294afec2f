import { weightedSum } from '../std/weighted-sum.js';
import type { FlowSchedule } from './flow-schedule.js';
import { mixNoise } from './prediction.js';
import type { Scheduler } from './scheduler.js';
import { UniPcSolver } from './unipc-solver.js';

/** Settings that WAN's own code and diffusers' configuration for it share. */
const SOLVER = { order: 2, type: 'bh2', lowerOrderFinal: true, disableCorrector: [] } as const;

/**
 * UniPC along a straight flow, x = (1 - sigma) x0 + sigma noise, from a model that predicts its velocity noise - x0.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/utils/fm_solvers_unipc.py#L281
 */
export class FlowUniPc implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #solver: UniPcSolver;

  constructor(name: string, { timesteps, sigmas }: FlowSchedule) {
    this.name = name;
    this.timesteps = timesteps;
    this.sigmas = sigmas;
    // The signal's share is taken from the level as float32 has it: near pure noise the rounding is most of what is left.
    const levels = Array.from(sigmas, (sigma) => {
      const alpha = 1 - sigma;
      return { alpha, sigma, lambda: Math.log(alpha) - Math.log(sigma) };
    });
    this.#solver = new UniPcSolver(levels, SOLVER);
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    const { alpha, sigma } = this.#solver.level(i);
    return mixNoise(clean, noise, alpha, sigma);
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  step(modelOutput: Float32Array, sample: Float32Array, i: number): Float32Array {
    const { sigma } = this.#solver.level(i);
    const clean = weightedSum(1, sample, -sigma, modelOutput);
    return this.#solver.step(clean, sample, i);
  }
}
