/** A sampler over a noise schedule: pure arithmetic on host arrays, no randomness that is not passed in. */
export interface Scheduler {
  readonly name: string;
  /** What the denoiser is told at each step, from noise to picture. */
  readonly timesteps: Float32Array;
  /** Noise levels: one a step, and the last one where the loop ends. */
  readonly sigmas: Float32Array;
  /** What initial noise of variance 1 is multiplied by. */
  readonly initNoiseSigma: number;
  /** The sample as the denoiser wants it at step `i`. */
  scaleModelInput(sample: Float32Array, i: number): Float32Array;
  /** The sample after step `i`. */
  step(modelOutput: Float32Array, sample: Float32Array, i: number): Float32Array;
}
