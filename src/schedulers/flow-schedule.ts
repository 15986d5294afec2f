import { linspace } from './noise-schedule.js';

/** Timesteps that every flow model here was trained with. */
const TRAINING_STEPS = 1000;

export interface FlowSchedule {
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
}

/**
 * Moves noise levels of 0 to 1 towards noise, where large pictures need their steps: shift s / (1 + (shift - 1) s).
 * Esser et al., arXiv:2403.03206, equation 23.
 */
function shifted(sigma: number, shift: number): number {
  return (shift * sigma) / (1 + (shift - 1) * sigma);
}

/**
 * Levels as WAN's own code spaces them for UniPC: from the last training level but one, so that the signal is never 0.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/utils/fm_solvers_unipc.py#L185
 */
export function unipcSchedule(shift: number, steps: number): FlowSchedule {
  const largest = Math.fround(1 - 1 / TRAINING_STEPS);
  const levels = linspace(largest, 0, steps + 1)
    .subarray(0, steps)
    .map((sigma) => shifted(sigma, shift));
  return wholeTimesteps(levels);
}

/**
 * The same as diffusers spaces them: from 1, and a millionth less where that is the first level, since its logarithm is needed.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_unipc_multistep.py#L396
 */
export function diffusersUnipcSchedule(shift: number, steps: number): FlowSchedule {
  const smallest = 1 / TRAINING_STEPS;
  const levels = linspace(1, smallest, steps + 1)
    .subarray(0, steps)
    .map((sigma) => shifted(sigma, shift));
  if (Math.abs((levels[0] ?? 0) - 1) < 1e-6) levels[0] = 1 - 1e-6;
  return wholeTimesteps(levels);
}

/**
 * Levels of flow-match Euler. Its smallest one is shifted when the table is made and again with all others, as in the reference.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_flow_match_euler_discrete.py#L280
 */
export function eulerSchedule(shift: number, steps: number): FlowSchedule {
  const smallest = Math.fround(shifted(1 / TRAINING_STEPS, shift));
  const levels = linspace(1, smallest, steps).map((sigma) => shifted(sigma, shift));
  const sigmas = Float32Array.of(...levels, 0);
  return { sigmas, timesteps: sigmas.subarray(0, steps).map((sigma) => sigma * TRAINING_STEPS) };
}

// UniPC gives the model whole timesteps, truncated and not rounded.
function wholeTimesteps(levels: Float64Array): FlowSchedule {
  return {
    timesteps: Float32Array.from(levels, (sigma) => Math.trunc(sigma * TRAINING_STEPS)),
    sigmas: Float32Array.of(...levels, 0),
  };
}
