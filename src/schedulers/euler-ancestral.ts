import { weightedSum } from '../std/weighted-sum.js';
import { type EulerConfig, EulerDiscrete } from './euler-discrete.js';
import type { Draw } from './scheduler.js';

/**
 * Euler steps that go a little further down and add noise back: Karras et al.'s stochastic sampler in the ancestral form of
 * k-diffusion. Levels are Euler's own, without remapping.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_euler_ancestral_discrete.py#L372
 */
export class EulerAncestral extends EulerDiscrete {
  constructor(name: string, config: EulerConfig, steps: number) {
    super(
      name,
      {
        ...config,
        use_karras_sigmas: false,
        use_exponential_sigmas: false,
        use_beta_sigmas: false,
        interpolation_type: 'linear',
        timestep_type: 'discrete',
        final_sigmas_type: 'zero',
      },
      steps,
    );
  }

  override step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array {
    const [from, to] = [this.sigmas[i] ?? 0, this.sigmas[i + 1] ?? 0];
    const { up, down } = ancestralLevels(from, to);
    const moved = this.move(modelOutput, sample, from, down);
    const noise = draw(sample.length);
    return weightedSum(1, moved, up, noise);
  }
}

/** The level that an ancestral step goes down to, and the noise that brings it back up to its end. */
export function ancestralLevels(from: number, to: number): { readonly up: number; readonly down: number } {
  const up = Math.sqrt((to ** 2 * (from ** 2 - to ** 2)) / from ** 2);
  return { up, down: Math.sqrt(to ** 2 - up ** 2) };
}
