/** What samplers of consistency models share: the timesteps that they were distilled for, and their configuration. */
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { noiseScheduleSchema, parseSchedulerConfig, spacedTimesteps } from './noise-schedule.js';

const consistencySchema = noiseScheduleSchema.extend({
  original_inference_steps: z.int().min(1).default(50),
  clip_sample: z.boolean().default(false),
  clip_sample_range: z.number().positive().default(1),
  timestep_scaling: z.number().positive().default(10),
});

export type ConsistencyConfig = z.infer<typeof consistencySchema>;

/** The options of a `scheduler_config.json` that samplers of consistency models understand. */
export function readConsistencyConfig(config: unknown): ConsistencyConfig {
  return parseSchedulerConfig(consistencySchema, config);
}

/**
 * Timesteps of few steps. With `trailing` they are spaced back from the last training timestep, as DMD2 is sampled; otherwise they are
 * evenly spaced ones of the distilled timesteps.
 * @param name of the scheduler, for messages
 * @throws InferenceError INVALID_REQUEST for more steps than there are distilled timesteps
 */
export function consistencyTimesteps(
  name: string,
  config: ConsistencyConfig,
  steps: number,
  spacing: 'distilled' | 'trailing',
): Float32Array {
  const { original_inference_steps: original, num_train_timesteps: count } = config;
  if (steps > original)
    throw new InferenceError('INVALID_REQUEST', `steps ${steps} must be <= ${original} for the scheduler ${name}`);
  if (spacing === 'trailing') return spacedTimesteps({ ...config, timestep_spacing: 'trailing' }, steps);
  const stride = Math.floor(count / original);
  return Float32Array.from({ length: steps }, (_, i) => (original - Math.floor((i * original) / steps)) * stride - 1);
}
