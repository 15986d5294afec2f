import { z } from 'zod';
import { multistepSchedule, multistepSchema } from './multistep-schedule.js';
import { parseSchedulerConfig } from './noise-schedule.js';
import { cleanSamples, mixNoise } from './prediction.js';
import type { Scheduler } from './scheduler.js';
import { UniPcSolver } from './unipc-solver.js';

const unipcSchema = multistepSchema.extend({
  solver_order: z.literal([1, 2]).default(2),
  solver_type: z.enum(['bh1', 'bh2']).default('bh2'),
  predict_x0: z.literal(true).default(true),
  disable_corrector: z.array(z.int()).default([]),
});

export type UniPcConfig = z.infer<typeof unipcSchema>;

/**
 * The options of a `scheduler_config.json` that UniPC understands. A `solver_type` of another sampler counts as the default, as
 * when the reference takes that sampler's configuration over.
 */
export function readUniPcConfig(config: unknown): UniPcConfig {
  const foreign = new Set(['midpoint', 'heun', 'logrho']);
  const given = typeof config === 'object' && config !== null ? { ...config } : {};
  if ('solver_type' in given && foreign.has(String(given.solver_type))) delete given.solver_type;
  return parseSchedulerConfig(unipcSchema, given);
}

/** UniPC over the noise schedule of a checkpoint that was trained by betas. */
export class UniPc implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #config: UniPcConfig;
  readonly #solver: UniPcSolver;

  constructor(name: string, config: UniPcConfig, steps: number) {
    this.name = name;
    this.#config = config;
    const { timesteps, sigmas, levels } = multistepSchedule(config, steps);
    this.timesteps = timesteps;
    this.sigmas = sigmas;
    this.#solver = new UniPcSolver(levels, {
      order: config.solver_order,
      type: config.solver_type,
      lowerOrderFinal: config.lower_order_final,
      disableCorrector: config.disable_corrector,
    });
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    const { alpha, sigma } = this.#solver.level(i);
    return mixNoise(clean, noise, alpha, sigma);
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  step(modelOutput: Float32Array, sample: Float32Array, i: number): Float32Array {
    const clean = cleanSamples(this.#config.prediction_type, this.#solver.level(i), modelOutput, sample);
    return this.#solver.step(clean, sample, i);
  }
}
