import { z } from 'zod';
import { InferenceError } from '../errors.js';
import {
  alphasCumprod,
  betaSigmas,
  exponentialSigmas,
  interpolate,
  karrasSigmas,
  linspace,
  noiseScheduleSchema,
  roundHalfEven,
  timestepOfSigma,
  trainingSigmas,
} from './noise-schedule.js';

/** Options of a `scheduler_config.json` that the multistep solvers (DPM-Solver++, UniPC) share. */
export const multistepSchema = noiseScheduleSchema.extend({
  use_karras_sigmas: z.boolean().nullish(),
  use_exponential_sigmas: z.boolean().nullish(),
  use_beta_sigmas: z.boolean().nullish(),
  use_flow_sigmas: z.literal(false, { error: 'flow sigmas belong to other models; set it to false' }).nullish(),
  final_sigmas_type: z.enum(['zero', 'sigma_min']).default('zero'),
  lower_order_final: z.boolean().default(true),
});

export type MultistepConfig = z.infer<typeof multistepSchema>;

/** A noise level as its share of signal and noise, and half its logarithmic signal-to-noise ratio. */
export interface Level {
  readonly alpha: number;
  readonly sigma: number;
  readonly lambda: number;
}

export interface MultistepSchedule {
  readonly timesteps: Float32Array;
  readonly sigmas: Float32Array;
  /** One per step and the final one, as `sigmas`. */
  readonly levels: readonly Level[];
}

/**
 * Timesteps and noise levels of a multistep solver: one place more is spaced than there are steps, and its last dropped.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_dpmsolver_multistep.py#L320
 */
export function multistepSchedule(config: MultistepConfig, steps: number): MultistepSchedule {
  if (steps >= config.num_train_timesteps) {
    throw new InferenceError(
      'INVALID_REQUEST',
      `steps ${steps} must be < ${config.num_train_timesteps} for this scheduler`,
    );
  }
  const training = trainingSigmas(alphasCumprod(config));
  const logSigmas = training.map(Math.log);
  const [smallest = 0, largest = 0] = [training[0], training.at(-1)];
  let timesteps: Float32Array = spacing(config, steps);
  let levels: Float64Array = Float64Array.from(timesteps, (t) => interpolate(training, t));
  if (config.use_karras_sigmas) {
    levels = karrasSigmas(largest, smallest, steps);
    timesteps = Float32Array.from(levels, (sigma) => roundHalfEven(timestepOfSigma(sigma, logSigmas)));
  } else if (config.use_exponential_sigmas || config.use_beta_sigmas) {
    levels = (config.use_beta_sigmas ? betaSigmas : exponentialSigmas)(largest, smallest, steps);
    timesteps = Float32Array.from(levels, (sigma) => Math.trunc(timestepOfSigma(sigma, logSigmas)));
  }
  const sigmas = Float32Array.of(...levels, config.final_sigmas_type === 'zero' ? 0 : smallest);
  return { timesteps, sigmas, levels: Array.from(sigmas, levelOf) };
}

function levelOf(sigma: number): Level {
  const alpha = 1 / Math.sqrt(sigma ** 2 + 1);
  return { alpha, sigma: sigma * alpha, lambda: Math.log(alpha) - Math.log(sigma * alpha) };
}

function spacing(
  { timestep_spacing, num_train_timesteps: count, steps_offset }: MultistepConfig,
  steps: number,
): Float32Array {
  switch (timestep_spacing) {
    case 'linspace':
      return Float32Array.from(linspace(0, count - 1, steps + 1), roundHalfEven)
        .reverse()
        .slice(0, steps);
    case 'leading': {
      const ratio = Math.floor(count / (steps + 1));
      return Float32Array.from({ length: steps }, (_, i) => (steps - i) * ratio + steps_offset);
    }
    case 'trailing':
      return Float32Array.from({ length: steps }, (_, i) => roundHalfEven(count - (i * count) / steps) - 1);
  }
}
