/** Draws that many normal numbers, in the stream that the picture's initial noise began. */
export type Draw = (size: number) => Float32Array;

/**
 * A sampler over a noise schedule: arithmetic on host arrays, no randomness that is not passed in. One for each picture: steps
 * are taken in order from any first one, and multistep samplers remember what the model said before.
 */
export interface Scheduler {
  readonly name: string;
  /** What the denoiser is told at each step, from noise to picture. */
  readonly timesteps: Float32Array;
  /** Noise levels: one a step, and the last one where the loop ends. */
  readonly sigmas: Float32Array;
  /** What initial noise of variance 1 is multiplied by. */
  readonly initNoiseSigma: number;
  /** A clean sample brought to the noise level that step `i` starts from: where image to image begins. */
  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array;
  /** The sample as the denoiser wants it at step `i`. */
  scaleModelInput(sample: Float32Array, i: number): Float32Array;
  /** The sample after step `i`. Only samplers that add noise call `draw`. */
  step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array;
}
