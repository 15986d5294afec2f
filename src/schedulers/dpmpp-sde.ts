import { weightedSum } from '../std/weighted-sum.js';
import { ancestralLevels } from './euler-ancestral.js';
import type { EulerConfig } from './euler-discrete.js';
import type { Draw } from './scheduler.js';
import { TwoCalls } from './second-order.js';

/** The first half of a step: where it began, and the noise of variance 1 that it added. */
interface Half {
  readonly sample: Float32Array;
  readonly noise: Float32Array;
}

/**
 * DPM-Solver++ of second order with noise, of two calls: an ancestral step to the middle of the levels, in log sigma, then one over the
 * whole step with the clean sample that the model predicts there. k-diffusion's `sample_dpmpp_sde` with r = 1/2.
 * https://github.com/crowsonkb/k-diffusion/blob/v0.1.1.post1/k_diffusion/sampling.py#L543
 */
export class DpmPpSde extends TwoCalls {
  #half: Half | undefined;

  constructor(name: string, config: EulerConfig, steps: number) {
    super(name, config, steps, (from, to) => Math.exp((Math.log(from) + Math.log(to)) / 2));
  }

  override step(modelOutput: Float32Array, sample: Float32Array, call: number, draw: Draw): Float32Array {
    const clean = this.denoise(modelOutput, sample, this.sigmas[call] ?? 0);
    // The last step ends at the clean sample.
    if (call === this.timesteps.length - 1) return clean;
    const from = this.levels[call >> 1] ?? 0;
    const to = this.sigmas[call + 1] ?? 0;
    const noise = draw(sample.length);
    if (call % 2 === 0) {
      this.#half = { sample, noise };
      return ancestralStep(sample, clean, noise, { from, to });
    }
    if (this.#half === undefined) throw new Error(`call ${call} without the one before`);
    const begin = this.#half;
    // Noise is that of a Brownian path over sigma: the whole step's contains its first half's.
    const middle = this.sigmas[call] ?? 0;
    const [before = 0, after = 0] = [(from - middle) / (from - to), (middle - to) / (from - to)].map(Math.sqrt);
    const whole = weightedSum(before, begin.noise, after, noise);
    return ancestralStep(begin.sample, clean, whole, { from, to });
  }
}

/** Down the line to the clean sample, below the level `to`, and back up to it by noise. */
function ancestralStep(
  sample: Float32Array,
  clean: Float32Array,
  noise: Float32Array,
  { from, to }: { readonly from: number; readonly to: number },
): Float32Array {
  const { up, down } = ancestralLevels(from, to);
  const keep = down / from;
  const next = new Float32Array(sample.length);
  for (let j = 0; j < next.length; j += 1)
    next[j] = keep * (sample[j] ?? 0) + (1 - keep) * (clean[j] ?? 0) + up * (noise[j] ?? 0);
  return next;
}
