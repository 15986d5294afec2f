import { InferenceError } from '../errors.js';
import { EulerDiscrete, readEulerConfig } from './euler-discrete.js';
import type { Scheduler } from './scheduler.js';

type Make = (name: string, config: unknown, steps: number) => Scheduler;

const schedulers: Readonly<Record<string, Make>> = {
  euler: (name, config, steps) => new EulerDiscrete(name, readEulerConfig(config), steps),
  euler_karras: (name, config, steps) =>
    new EulerDiscrete(name, { ...readEulerConfig(config), use_karras_sigmas: true }, steps),
};

/** Names that a request may give. */
export const schedulerNames: readonly string[] = Object.keys(schedulers);

/**
 * @param config the checkpoint's `scheduler_config.json`
 * @param steps denoising steps, 1 and up
 * @throws InferenceError INVALID_REQUEST for an unknown name, CHECKPOINT_INVALID for options that cannot be used
 */
export function createScheduler(name: string, config: unknown, steps: number): Scheduler {
  const make = Object.hasOwn(schedulers, name) ? schedulers[name] : undefined;
  if (make === undefined) {
    throw new InferenceError('INVALID_REQUEST', `scheduler "${name}" must be one of ${schedulerNames.join(', ')}`);
  }
  return make(name, config, steps);
}
