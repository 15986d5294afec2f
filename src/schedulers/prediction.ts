import { weightedSum } from '../std/weighted-sum.js';
import type { NoiseSchedule } from './noise-schedule.js';

export type Prediction = NoiseSchedule['prediction_type'];

/**
 * The clean sample that a model's output implies, for a sample `alpha` x0 + `sigma` noise with alpha^2 + sigma^2 = 1.
 * v-prediction: Salimans and Ho, arXiv:2202.00512, appendix D.
 */
export function cleanSample(
  prediction: Prediction,
  alpha: number,
  sigma: number,
): (output: number, x: number) => number {
  switch (prediction) {
    case 'epsilon':
      return (output, x) => (x - sigma * output) / alpha;
    case 'v_prediction':
      return (output, x) => alpha * x - sigma * output;
    case 'sample':
      return (output) => output;
  }
}

/** The same of all elements of an output and a sample. */
export function cleanSamples(
  prediction: Prediction,
  { alpha, sigma }: { readonly alpha: number; readonly sigma: number },
  output: Float32Array,
  sample: Float32Array,
): Float32Array {
  const toClean = cleanSample(prediction, alpha, sigma);
  const clean = new Float32Array(sample.length);
  for (let j = 0; j < clean.length; j += 1) clean[j] = toClean(output[j] ?? 0, sample[j] ?? 0);
  return clean;
}

/** The model's output that implies a clean sample: the inverse of `cleanSample`. @param sigma above 0 */
export function outputOfClean(
  prediction: Prediction,
  alpha: number,
  sigma: number,
): (clean: number, x: number) => number {
  switch (prediction) {
    case 'epsilon':
      return (clean, x) => (x - alpha * clean) / sigma;
    case 'v_prediction':
      return (clean, x) => (alpha * x - clean) / sigma;
    case 'sample':
      return (clean) => clean;
  }
}

/** `alpha` x0 + `sigma` noise. */
export function mixNoise(clean: Float32Array, noise: Float32Array, alpha: number, sigma: number): Float32Array {
  return weightedSum(alpha, clean, sigma, noise);
}
