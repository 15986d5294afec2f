import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { problemsOf } from '../std/schema-problems.js';
import { betaQuantile } from './beta-quantile.js';

/**
 * Classes of diffusers whose configuration describes noise by betas, so that any sampler here can read it. Others (EDM, flow
 * matching) would be misread, not refused, by their options alone.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_utils.py#L34
 */
const BETA_SCHEDULERS =
  /^(DDIM|DDPM|PNDM|LMSDiscrete|Euler(Ancestral)?Discrete|HeunDiscrete|KDPM2(Ancestral)?Discrete|DPMSolver(Multistep|Singlestep|SDE)|DEISMultistep|UniPCMultistep|LCM|TCD)Scheduler$/;

/**
 * Options of a `scheduler_config.json` for the training noise and the spacing of the steps. Defaults are diffusers'
 * own.
 */
export const noiseScheduleSchema = z.object({
  _class_name: z
    .string()
    .regex(BETA_SCHEDULERS, { error: ({ input }) => `${JSON.stringify(input)} is not a scheduler that is known here` })
    .optional(),
  num_train_timesteps: z.int().min(1).max(1_000_000).default(1000),
  beta_start: z.number().default(0.0001),
  beta_end: z.number().default(0.02),
  beta_schedule: z.enum(['linear', 'scaled_linear']).default('linear'),
  trained_betas: z.array(z.number()).min(1).nullish(),
  prediction_type: z.enum(['epsilon', 'v_prediction', 'sample']).default('epsilon'),
  timestep_spacing: z.enum(['linspace', 'leading', 'trailing']).default('linspace'),
  steps_offset: z.int().min(0).default(0),
  rescale_betas_zero_snr: z.boolean().default(false),
});

export type NoiseSchedule = z.infer<typeof noiseScheduleSchema>;

/** @throws InferenceError CHECKPOINT_INVALID that names every option that is not understood */
export function parseSchedulerConfig<T>(schema: z.ZodType<T>, config: unknown): T {
  const parsed = schema.safeParse(config);
  if (parsed.success) return parsed.data;
  const problems = problemsOf(parsed.error);
  throw new InferenceError('CHECKPOINT_INVALID', `scheduler_config.json cannot be used: ${problems.join('; ')}`);
}

/**
 * Cumulative products of 1 - beta over the training timesteps, in float32 as torch computes them.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_euler_discrete.py#L213
 */
export function alphasCumprod(schedule: NoiseSchedule, { keepsTerminalZero = false } = {}): Float32Array {
  const betas = trainingBetas(schedule);
  const alphas = new Float32Array(betas.length);
  let product = 1;
  for (const [i, beta] of betas.entries()) {
    product *= Math.fround(1 - beta);
    alphas[i] = product;
  }
  if (!schedule.rescale_betas_zero_snr) return alphas;
  const rescaled = zeroTerminalSnr(alphas);
  // As a noise level the last one would be infinite, so samplers over sigmas use 2^-24 instead.
  if (!keepsTerminalZero) rescaled[rescaled.length - 1] = 2 ** -24;
  return rescaled;
}

function trainingBetas(schedule: NoiseSchedule): Float32Array {
  if (schedule.trained_betas) return Float32Array.from(schedule.trained_betas);
  const { beta_start: start, beta_end: end, num_train_timesteps: count } = schedule;
  if (schedule.beta_schedule === 'linear') return Float32Array.from(linspace(start, end, count));
  return Float32Array.from(linspace(Math.sqrt(start), Math.sqrt(end), count), (root) => Math.fround(root) ** 2);
}

/** Shifts and scales the square roots so that the last one is zero. Lin et al., arXiv:2305.08891, algorithm 1. */
function zeroTerminalSnr(alphas: Float32Array): Float32Array {
  const first = Math.sqrt(alphas[0] ?? 1);
  const last = Math.sqrt(alphas.at(-1) ?? 0);
  return alphas.map((alpha) => (((Math.sqrt(alpha) - last) * first) / (first - last)) ** 2);
}

/** Noise levels of the training timesteps, sqrt((1 - a) / a), in float32 as the reference keeps them. */
export function trainingSigmas(alphas: Float32Array): Float32Array {
  return alphas.map((alpha) => Math.sqrt(Math.fround(Math.fround(1 - alpha) / alpha)));
}

/** Training timesteps that `steps` steps visit, from noise to image. */
export function spacedTimesteps(schedule: NoiseSchedule, steps: number): Float32Array {
  const { num_train_timesteps: count, steps_offset: offset } = schedule;
  switch (schedule.timestep_spacing) {
    case 'linspace':
      return Float32Array.from(linspace(0, count - 1, steps)).reverse();
    case 'leading': {
      const ratio = Math.floor(count / steps);
      if (ratio === 0) {
        throw new InferenceError(
          'INVALID_REQUEST',
          `steps ${steps} must be <= ${count}, what the checkpoint trained with`,
        );
      }
      return Float32Array.from({ length: steps }, (_, i) => (steps - 1 - i) * ratio + offset);
    }
    case 'trailing':
      return Float32Array.from({ length: steps }, (_, i) => roundHalfEven(count - (i * count) / steps) - 1);
  }
}

/** Value of a table at a fractional index, held constant outside. */
export function interpolate(table: ArrayLike<number>, index: number): number {
  const last = table.length - 1;
  const low = Math.min(Math.max(Math.floor(index), 0), last);
  const a = table[low] ?? 0;
  const b = table[Math.min(low + 1, last)] ?? 0;
  return index <= 0 ? (table[0] ?? 0) : a + (b - a) * Math.min(index - low, 1);
}

/** Levels from `max` down to `min`, even in sigma^(1/7). Karras et al., arXiv:2206.00364, equation 5. */
export function karrasSigmas(max: number, min: number, steps: number, rho = 7): Float64Array {
  const [high, low] = [max ** (1 / rho), min ** (1 / rho)];
  return Float64Array.from(linspace(0, 1, steps), (ramp) => (high + ramp * (low - high)) ** rho);
}

/** Levels from `max` down to `min`, even in log sigma. */
export function exponentialSigmas(max: number, min: number, steps: number): Float64Array {
  return Float64Array.from(linspace(Math.log(max), Math.log(min), steps), Math.exp);
}

/**
 * Levels from `max` down to `min` by the quantiles of a beta distribution, which are closest at both ends. Lee et al.,
 * arXiv:2407.12173; its shapes are those of diffusers.
 */
export function betaSigmas(max: number, min: number, steps: number, shape = 0.6): Float64Array {
  return Float64Array.from(linspace(1, 0, steps), (share) => min + betaQuantile(share, shape, shape) * (max - min));
}

/** The (fractional) training timestep that has a noise level: interpolated in log sigma. */
export function timestepOfSigma(sigma: number, logSigmas: ArrayLike<number>): number {
  const logSigma = Math.log(Math.max(sigma, 1e-10));
  let low = 0;
  while (low < logSigmas.length - 2 && (logSigmas[low + 1] ?? 0) <= logSigma) low += 1;
  const [a, b] = [logSigmas[low] ?? 0, logSigmas[low + 1] ?? 0];
  const weight = Math.min(Math.max((a - logSigma) / (a - b), 0), 1);
  return low + weight;
}

export function linspace(start: number, end: number, count: number): Float64Array {
  const step = count > 1 ? (end - start) / (count - 1) : 0;
  return Float64Array.from({ length: count }, (_, i) => (i === count - 1 && count > 1 ? end : start + step * i));
}

export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
