import { cleanSample, outputOfClean, type Prediction } from '../../schedulers/prediction.js';

/** What the denoiser saw at a step. */
export interface NoisySample {
  /** Of variance 1; with a flow (1 - sigma) clean + sigma noise. */
  readonly input: Float32Array;
  /** Noise level: noise over signal; with a flow the share of noise. */
  readonly sigma: number;
  readonly prediction: Prediction | 'flow';
}

/** The clean latents that the denoiser's output predicts. */
export function cleanLatents({ input, sigma, prediction }: NoisySample, output: Float32Array): Float32Array {
  if (prediction === 'flow') return combined(output, input, (value, x) => x - sigma * value);
  const alpha = 1 / Math.sqrt(sigma ** 2 + 1);
  return combined(output, input, cleanSample(prediction, alpha, sigma * alpha));
}

/** The output that predicts clean latents: the inverse of `cleanLatents`. The noise level is above 0. */
export function outputOfLatents({ input, sigma, prediction }: NoisySample, clean: Float32Array): Float32Array {
  if (prediction === 'flow') return combined(clean, input, (value, x) => (x - value) / sigma);
  const alpha = 1 / Math.sqrt(sigma ** 2 + 1);
  return combined(clean, input, outputOfClean(prediction, alpha, sigma * alpha));
}

// A plain loop: a video has millions of latents, for which `map` takes several times as long.
function combined(
  values: Float32Array,
  input: Float32Array,
  combine: (value: number, x: number) => number,
): Float32Array {
  const result = new Float32Array(values.length);
  for (let i = 0; i < result.length; i += 1) result[i] = combine(values[i] ?? 0, input[i] ?? 0);
  return result;
}
