import { weightedSum } from '../std/weighted-sum.js';
import { ancestralLevels } from './euler-ancestral.js';
import { advance, type EulerConfig, EulerDiscrete } from './euler-discrete.js';
import { roundHalfEven, timestepOfSigma } from './noise-schedule.js';
import type { Draw } from './scheduler.js';

/** A step that has been tried: where it began, and its first tangent. */
interface Trial {
  readonly sample: Float32Array;
  readonly derivative: Float32Array;
}

/** Noise levels at both ends of a step, and noise for it. */
interface StepEnds {
  readonly from: number;
  readonly to: number;
  readonly draw: Draw;
}

/** Samplers that call the denoiser a second time within a step, at another noise level. The last step has one call. */
export abstract class TwoCalls extends EulerDiscrete {
  /** Noise levels of the steps, and the one where the loop ends. */
  protected readonly levels: Float32Array;

  /**
   * @param between noise level of the second call of a step; undefined: the level where the step ends
   * @param roundTimestep applies to the timesteps of the steps themselves
   */
  constructor(
    name: string,
    config: EulerConfig,
    steps: number,
    between: (from: number, to: number) => number | undefined,
    roundTimestep = (timestep: number) => timestep,
  ) {
    super(name, { ...config, timestep_type: 'discrete', final_sigmas_type: 'zero' }, steps);
    const levels = this.sigmas;
    const timesteps = this.timesteps.map(roundTimestep);
    this.levels = levels;
    const calls = Array.from({ length: 2 * steps - 1 }, (_, call) => {
      const step = call >> 1;
      const [from, to] = [levels[step] ?? 0, levels[step + 1] ?? 0];
      if (call % 2 === 0) return { sigma: from, timestep: timesteps[step] ?? 0 };
      const middle = between(from, to);
      if (middle === undefined) return { sigma: to, timestep: timesteps[step + 1] ?? 0 };
      return { sigma: middle, timestep: timestepOfSigma(middle, this.logSigmas) };
    });
    this.timesteps = Float32Array.from(calls, ({ timestep }) => timestep);
    this.sigmas = Float32Array.of(...calls.map(({ sigma }) => sigma), 0);
  }
}

/** Two-call samplers that repeat the step from its beginning along a tangent that `combine` makes of those of both calls. The last step is Euler's. */
abstract class SecondOrder extends TwoCalls {
  #trial: Trial | undefined;

  override step(modelOutput: Float32Array, sample: Float32Array, call: number, draw: Draw): Float32Array {
    const step = call >> 1;
    const [from, to] = [this.levels[step] ?? 0, this.levels[step + 1] ?? 0];
    const sigma = this.sigmas[call] ?? 0;
    const derivative = this.derivative(modelOutput, sample, sigma);
    if (call % 2 === 0) {
      this.#trial = { sample, derivative };
      // The last step has no second call.
      const middle = call === this.timesteps.length - 1 ? to : (this.sigmas[call + 1] ?? 0);
      return advance(sample, derivative, Math.fround(middle - from));
    }
    if (this.#trial === undefined) throw new Error(`call ${call} without the one before`);
    const begin = this.#trial;
    return this.arrive(begin.sample, this.combine(begin.derivative, derivative), { from, to, draw });
  }

  /** The sample at the end of a step of two calls. */
  protected arrive(sample: Float32Array, tangent: Float32Array, { from, to }: StepEnds): Float32Array {
    return advance(sample, tangent, Math.fround(to - from));
  }

  /** The tangent of the whole step, from those of its two calls. */
  protected abstract combine(first: Float32Array, second: Float32Array): Float32Array;
}

/**
 * Heun's method: the mean of the tangents at both ends of a step. Karras et al., arXiv:2206.00364, algorithm 1.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_heun_discrete.py#L94
 */
export class Heun extends SecondOrder {
  constructor(name: string, config: EulerConfig, steps: number) {
    super(name, config, steps, () => undefined);
  }

  protected override combine(first: Float32Array, second: Float32Array): Float32Array {
    const mean = new Float32Array(first.length);
    for (let j = 0; j < mean.length; j += 1) mean[j] = Math.fround((first[j] ?? 0) + (second[j] ?? 0)) / 2;
    return mean;
  }
}

/**
 * DPM-Solver-2 in the form of Karras et al.: the tangent in the middle of a step, in log sigma. Lu et al., arXiv:2206.00927.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_k_dpm_2_discrete.py#L94
 */
export class Dpm2 extends SecondOrder {
  constructor(name: string, config: EulerConfig, steps: number) {
    // Of Karras' levels diffusers rounds the timesteps, but not those between them.
    const round = config.use_karras_sigmas ? roundHalfEven : undefined;
    super(name, config, steps, (from, to) => Math.exp((Math.log(from) + Math.log(to)) / 2), round);
  }

  protected override combine(_: Float32Array, second: Float32Array): Float32Array {
    return second;
  }
}

/**
 * The same, going a little further down in every step and adding noise back; the middle is that of the way down.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_k_dpm_2_ancestral_discrete.py#L95
 */
export class Dpm2Ancestral extends SecondOrder {
  constructor(name: string, config: EulerConfig, steps: number) {
    const round = config.use_karras_sigmas ? roundHalfEven : undefined;
    const middle = (from: number, to: number) =>
      Math.exp((Math.log(from) + Math.log(ancestralLevels(from, to).down)) / 2);
    super(name, config, steps, middle, round);
  }

  protected override combine(_: Float32Array, second: Float32Array): Float32Array {
    return second;
  }

  protected override arrive(sample: Float32Array, tangent: Float32Array, { from, to, draw }: StepEnds): Float32Array {
    const { up, down } = ancestralLevels(from, to);
    const moved = advance(sample, tangent, Math.fround(down - from));
    const noise = draw(sample.length);
    return weightedSum(1, moved, up, noise);
  }
}
