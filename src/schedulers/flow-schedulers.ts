/** Samplers of flow models (WAN). They share nothing with those of SDXL but their interface, so they are listed apart. */
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { FlowEuler } from './flow-euler.js';
import { FlowLcm } from './flow-lcm.js';
import { diffusersUnipcSchedule, eulerSchedule, unipcSchedule } from './flow-schedule.js';
import { FlowUniPc } from './flow-unipc.js';
import { schedulerNamed } from './names.js';
import { parseSchedulerConfig } from './noise-schedule.js';
import type { Scheduler } from './scheduler.js';

export interface FlowOptions {
  /** Shift of the noise levels towards noise; 1 leaves them even. */
  readonly shift: number;
  /** Denoising steps, 1 and up. */
  readonly steps: number;
}

type Make = (name: string, options: FlowOptions) => Scheduler;

const schedulers: Readonly<Record<string, Make>> = {
  flow_unipc: (name, { shift, steps }) => new FlowUniPc(name, unipcSchedule(shift, steps)),
  flow_unipc_diffusers: (name, { shift, steps }) => new FlowUniPc(name, diffusersUnipcSchedule(shift, steps)),
  flow_euler: (name, { shift, steps }) => new FlowEuler(name, eulerSchedule(shift, steps)),
  flow_lcm: (name, { shift, steps }) => new FlowLcm(name, eulerSchedule(shift, steps)),
};

/** Names from other projects. A bare "unipc" is the original code's. */
const ALIASES: Readonly<Record<string, string>> = {
  unipc: 'flow_unipc',
  unipcbh2: 'flow_unipc',
  flowunipcmultistepscheduler: 'flow_unipc',
  unipcmultistepscheduler: 'flow_unipc_diffusers',
  euler: 'flow_euler',
  flowmatcheuler: 'flow_euler',
  flowmatcheulerdiscretescheduler: 'flow_euler',
  lcm: 'flow_lcm',
  flowmatchlcmscheduler: 'flow_lcm',
};

/** Names that requests may use, the default first. */
export const flowSchedulerNames: readonly string[] = Object.keys(schedulers);

/** The flow scheduler of a name in any case and punctuation; undefined for an unknown name. */
export function flowSchedulerNamed(name: string): string | undefined {
  return schedulerNamed(name, flowSchedulerNames, ALIASES);
}

/** @throws InferenceError INVALID_REQUEST for an unknown name, and for a shift or steps that give no schedule */
export function createFlowScheduler(name: string, { shift, steps }: FlowOptions): Scheduler {
  const refuse = (problem: string): never => {
    throw new InferenceError('INVALID_REQUEST', problem);
  };
  const make = Object.hasOwn(schedulers, name) ? schedulers[name] : undefined;
  if (make === undefined) return refuse(`scheduler "${name}" must be one of ${flowSchedulerNames.join(', ')}`);
  if (!Number.isSafeInteger(steps) || steps < 1) refuse(`steps ${steps} must be a whole number >= 1`);
  if (!Number.isFinite(shift) || shift <= 0) refuse(`shift ${shift} must be > 0`);
  return make(name, { shift, steps });
}

const shiftSchema = z.object({
  flow_shift: z.number().positive().optional(),
  shift: z.number().positive().optional(),
});

/**
 * The shift that a `scheduler_config.json` says; undefined where it says none.
 * @throws InferenceError CHECKPOINT_INVALID for one that is no positive number
 */
export function flowShiftOf(config: unknown): number | undefined {
  const { flow_shift, shift } = parseSchedulerConfig(shiftSchema, config);
  return flow_shift ?? shift;
}
