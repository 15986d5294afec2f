import { z } from 'zod';
import { type Level, multistepSchedule, multistepSchema } from './multistep-schedule.js';
import { parseSchedulerConfig } from './noise-schedule.js';
import { cleanSample, mixNoise } from './prediction.js';
import type { Scheduler } from './scheduler.js';

const unipcSchema = multistepSchema.extend({
  solver_order: z.int().min(1).max(2).default(2),
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

/**
 * UniPC with B(h), multistep, predicting the clean sample: Zhao et al., arXiv:2302.04867, algorithms 5 to 8. Every step first
 * corrects the sample with the model's new output, then predicts the next one.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_unipc_multistep.py#L617
 */
export class UniPc implements Scheduler {
  readonly name: string;
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  readonly initNoiseSigma = 1;
  readonly #config: UniPcConfig;
  readonly #levels: readonly Level[];
  /** Clean samples that the model named, the latest last, at most two. */
  #named: Float32Array[] = [];
  /** What the last prediction started from, and its order. */
  #last: { readonly sample: Float32Array; readonly order: number } | undefined;

  constructor(name: string, config: UniPcConfig, steps: number) {
    this.name = name;
    this.#config = config;
    const { timesteps, sigmas, levels } = multistepSchedule(config, steps);
    this.timesteps = timesteps;
    this.sigmas = sigmas;
    this.#levels = levels;
  }

  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array {
    const { alpha, sigma } = this.#level(i);
    return mixNoise(clean, noise, alpha, sigma);
  }

  scaleModelInput(sample: Float32Array): Float32Array {
    return sample;
  }

  step(modelOutput: Float32Array, sample: Float32Array, i: number): Float32Array {
    const { alpha, sigma } = this.#level(i);
    const toClean = cleanSample(this.#config.prediction_type, alpha, sigma);
    const clean = sample.map((x, j) => toClean(modelOutput[j] ?? 0, x));
    const last = this.#last;
    const isCorrected = last !== undefined && !this.#config.disable_corrector.includes(i - 1);
    const corrected = isCorrected ? this.#correct(last.sample, clean, i, last.order) : sample;
    this.#named = [...this.#named, clean].slice(-2);
    const left = this.timesteps.length - i;
    const wanted = this.#config.lower_order_final
      ? Math.min(this.#config.solver_order, left)
      : this.#config.solver_order;
    const order = Math.min(wanted, this.#named.length);
    this.#last = { sample: corrected, order };
    return this.#predict(corrected, i, order);
  }

  // From level i to i + 1.
  #predict(x: Float32Array, i: number, order: number): Float32Array {
    const [from, to] = [this.#level(i), this.#level(i + 1)];
    const { b, phi } = this.#integrals(from, to);
    const [before, now] = order === 2 ? this.#named : [undefined, this.#named.at(-1)];
    const ratio = order === 2 ? this.#ratio(i - 1, from, to) : 1;
    return x.map((value, j) => {
      const m0 = now?.[j] ?? 0;
      const slope = before === undefined ? 0 : ((before[j] ?? 0) - m0) / ratio;
      return (to.sigma / from.sigma) * value - to.alpha * (phi * m0 + b * 0.5 * slope);
    });
  }

  // From level i - 1 to i anew, now that the model has spoken at i.
  #correct(x: Float32Array, clean: Float32Array, i: number, order: number): Float32Array {
    const [from, to] = [this.#level(i - 1), this.#level(i)];
    const { b, phi, rhs } = this.#integrals(from, to);
    const [before, now] = order === 2 ? this.#named : [undefined, this.#named.at(-1)];
    const ratio = order === 2 ? this.#ratio(i - 2, from, to) : 1;
    // [1 1; ratio 1] rho = rhs
    const older = order === 2 ? (rhs[0] - rhs[1]) / (1 - ratio) : 0;
    const newer = order === 2 ? rhs[0] - older : 0.5;
    return x.map((value, j) => {
      const m0 = now?.[j] ?? 0;
      const slope = before === undefined ? 0 : ((before[j] ?? 0) - m0) / ratio;
      const change = older * slope + newer * ((clean[j] ?? 0) - m0);
      return (to.sigma / from.sigma) * value - to.alpha * (phi * m0 + b * change);
    });
  }

  // Of a step of h: e^-h - 1, B(h), and the right-hand side of the corrector's equations.
  #integrals(from: Level, to: Level): { phi: number; b: number; rhs: readonly [number, number] } {
    const hh = from.lambda - to.lambda;
    const phi = Math.expm1(hh);
    const b = this.#config.solver_type === 'bh1' ? hh : phi;
    const phi2 = phi / hh - 1;
    const phi3 = phi2 / hh - 1 / 2;
    return { phi, b, rhs: [phi2 / b, (2 * phi3) / b] };
  }

  #ratio(older: number, from: Level, to: Level): number {
    return (this.#level(older).lambda - from.lambda) / (to.lambda - from.lambda);
  }

  #level(i: number): Level {
    const level = this.#levels[i];
    if (level === undefined) throw new Error(`level ${i} of ${this.#levels.length}`);
    return level;
  }
}
