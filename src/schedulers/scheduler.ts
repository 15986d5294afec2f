/** Draws normal numbers from the stream that the image's initial noise started. */
export type Draw = (size: number) => Float32Array;

/**
 * A sampler over a noise schedule: arithmetic on host arrays, no randomness that is not passed in. One for each picture: steps
 * are taken in order from any first one, and multistep samplers remember what the model said before.
 */
export interface Scheduler {
  readonly name: string;
  /**
   * Timestep that the denoiser gets at each of its calls, from noise to image. Samplers of second order call it twice in every
   * step but the last, PNDM twice in the first; the other methods take the index of a call as `i`.
   */
  readonly timesteps: Float32Array;
  /** Noise levels: one per call, and the level where the loop ends. */
  readonly sigmas: Float32Array;
  /** Factor for initial noise of variance 1. */
  readonly initNoiseSigma: number;
  /** Brings a clean sample to the noise level of step `i`: image-to-image starts there. */
  addNoise(clean: Float32Array, noise: Float32Array, i: number): Float32Array;
  /** Scales the sample for the denoiser at step `i`. */
  scaleModelInput(sample: Float32Array, i: number): Float32Array;
  /** The sample after step `i`. Only samplers that add noise call `draw`. */
  step(modelOutput: Float32Array, sample: Float32Array, i: number, draw: Draw): Float32Array;
}
