import { cleanSamples, outputOfClean, type Prediction } from '../../schedulers/prediction.js';
import { weightedSum } from '../../std/weighted-sum.js';

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
  if (prediction === 'flow') return weightedSum(1, input, -sigma, output);
  const alpha = 1 / Math.sqrt(sigma ** 2 + 1);
  return cleanSamples(prediction, { alpha, sigma: sigma * alpha }, output, input);
}

/** The output that predicts clean latents: the inverse of `cleanLatents`. The noise level is above 0. */
export function outputOfLatents({ input, sigma, prediction }: NoisySample, clean: Float32Array): Float32Array {
  const alpha = 1 / Math.sqrt(sigma ** 2 + 1);
  const toOutput =
    prediction === 'flow'
      ? (value: number, x: number) => (x - value) / sigma
      : outputOfClean(prediction, alpha, sigma * alpha);
  const output = new Float32Array(clean.length);
  for (let i = 0; i < output.length; i += 1) output[i] = toOutput(clean[i] ?? 0, input[i] ?? 0);
  return output;
}
