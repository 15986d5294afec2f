import { InferenceError } from '../errors.js';
import { readConsistencyConfig } from './consistency-schedule.js';
import { Ddim, readDdimConfig } from './ddim.js';
import { type DpmConfig, type DpmOptions, DpmPp, readDpmConfig } from './dpmpp.js';
import { DpmPp3mSde } from './dpmpp-3m-sde.js';
import { DpmPpSde } from './dpmpp-sde.js';
import { EulerAncestral } from './euler-ancestral.js';
import { type EulerConfig, EulerDiscrete, readEulerConfig } from './euler-discrete.js';
import { Lcm } from './lcm.js';
import { Lms } from './lms.js';
import { noiseScheduleSchema, parseSchedulerConfig } from './noise-schedule.js';
import { Pndm, readPndmConfig } from './pndm.js';
import type { Prediction } from './prediction.js';
import type { Scheduler } from './scheduler.js';
import { Dpm2, Dpm2Ancestral, Heun } from './second-order.js';
import { Tcd } from './tcd.js';
import { readUniPcConfig, UniPc } from './unipc.js';

type Make = (name: string, config: unknown, steps: number) => Scheduler;

const PLAIN = { use_karras_sigmas: false, use_exponential_sigmas: false, use_beta_sigmas: false } as const;
const KARRAS = { ...PLAIN, use_karras_sigmas: true } as const;
const EXPONENTIAL = { ...PLAIN, use_exponential_sigmas: true } as const;
const BETA = { ...PLAIN, use_beta_sigmas: true } as const;

const euler =
  (levels: Partial<EulerConfig> = {}): Make =>
  (name, config, steps) =>
    new EulerDiscrete(name, { ...readEulerConfig(config), ...levels }, steps);
/** Samplers over Euler's levels. */
const overEuler =
  (
    Sampler: new (name: string, config: EulerConfig, steps: number) => Scheduler,
    levels: Partial<EulerConfig> = {},
  ): Make =>
  (name, config, steps) =>
    new Sampler(name, { ...readEulerConfig(config), ...levels }, steps);
const dpmpp =
  (levels: Partial<DpmConfig> = {}, options: DpmOptions = {}): Make =>
  (name, config, steps) =>
    new DpmPp(name, { ...readDpmConfig(config), ...levels }, steps, options);
const dpmpp3mSde =
  (levels: Partial<DpmConfig> = {}): Make =>
  (name, config, steps) =>
    new DpmPp3mSde(name, { ...readDpmConfig(config), ...levels }, steps);

/**
 * Steps counted back from the last training timestep. Lightning, Hyper-SD and models with zero terminal SNR are sampled
 * this way.
 */
const trailing =
  (make: Make): Make =>
  (name, config, steps) =>
    make(name, { ...(config as object), timestep_spacing: 'trailing' }, steps);
const eulerAncestral: Make = (name, config, steps) => new EulerAncestral(name, readEulerConfig(config), steps);
const unipc: Make = (name, config, steps) => new UniPc(name, readUniPcConfig(config), steps);
const pndm: Make = (name, config, steps) => new Pndm(name, readPndmConfig(config), steps);
const ddim: Make = (name, config, steps) => new Ddim(name, readDdimConfig(config), steps);

/** These call the denoiser twice in every step but the last. */
const secondOrder: Readonly<Record<string, Make>> = {
  heun: overEuler(Heun),
  heun_karras: overEuler(Heun, KARRAS),
  dpm2: overEuler(Dpm2),
  dpm2_karras: overEuler(Dpm2, KARRAS),
  dpm2_ancestral: overEuler(Dpm2Ancestral),
  dpm2_ancestral_karras: overEuler(Dpm2Ancestral, KARRAS),
  dpmpp_sde: overEuler(DpmPpSde),
  dpmpp_sde_karras: overEuler(DpmPpSde, KARRAS),
  dpmpp_sde_exponential: overEuler(DpmPpSde, EXPONENTIAL),
  dpmpp_sde_beta: overEuler(DpmPpSde, BETA),
  dpmpp_sde_trailing: trailing(overEuler(DpmPpSde)),
};

/** These call the denoiser twice in the first step of a whole schedule. */
const startsTwice: Readonly<Record<string, Make>> = {
  pndm,
  pndm_trailing: trailing(pndm),
};

const schedulers: Readonly<Record<string, Make>> = {
  euler: euler(),
  euler_karras: euler(KARRAS),
  euler_exponential: euler(EXPONENTIAL),
  euler_beta: euler(BETA),
  euler_trailing: trailing(euler()),
  euler_ancestral: eulerAncestral,
  euler_ancestral_trailing: trailing(eulerAncestral),
  dpmpp_2m: dpmpp(),
  dpmpp_2m_karras: dpmpp(KARRAS),
  dpmpp_2m_exponential: dpmpp(EXPONENTIAL),
  dpmpp_2m_beta: dpmpp(BETA),
  dpmpp_2m_trailing: trailing(dpmpp()),
  dpmpp_2m_sde: dpmpp({}, { sde: true }),
  dpmpp_2m_sde_karras: dpmpp(KARRAS, { sde: true }),
  dpmpp_2m_sde_beta: dpmpp(BETA, { sde: true }),
  dpmpp_3m: dpmpp({}, { order: 3 }),
  dpmpp_3m_karras: dpmpp(KARRAS, { order: 3 }),
  dpmpp_3m_sde: dpmpp3mSde(),
  dpmpp_3m_sde_karras: dpmpp3mSde(KARRAS),
  dpmpp_3m_sde_exponential: dpmpp3mSde(EXPONENTIAL),
  dpmpp_3m_sde_trailing: trailing(dpmpp3mSde()),
  ...secondOrder,
  lms: overEuler(Lms),
  lms_karras: overEuler(Lms, KARRAS),
  unipc,
  unipc_trailing: trailing(unipc),
  ...startsTwice,
  ddim,
  ddim_trailing: trailing(ddim),
  lcm: (name, config, steps) => new Lcm(name, readConsistencyConfig(config), steps),
  lcm_trailing: (name, config, steps) => new Lcm(name, readConsistencyConfig(config), steps, 'trailing'),
  tcd: (name, config, steps) => new Tcd(name, readConsistencyConfig(config), steps),
};

/** Largest number of steps, of schedulers that have one: those of consistency models have the steps that these were distilled from. */
export function maxSteps(config: unknown): Readonly<Record<string, number>> {
  const { original_inference_steps: most } = readConsistencyConfig(config);
  return { lcm: most, lcm_trailing: most, tcd: most };
}

/** Calls of the denoiser in a step of a whole schedule, from 0 on. The last step has one in every schedule. */
export function callsInStep(scheduler: string, step: number): 1 | 2 {
  const isTwice = Object.hasOwn(secondOrder, scheduler) || (step === 0 && Object.hasOwn(startsTwice, scheduler));
  return isTwice ? 2 : 1;
}

/** Index of the first call of the denoiser in a step of a whole schedule: the sum of the calls in the steps before. */
export function firstCallOf(scheduler: string, step: number): number {
  return step === 0 ? 0 : callsInStep(scheduler, 0) + (step - 1) * callsInStep(scheduler, 1);
}

/** Names that a request may give. */
export const schedulerNames: readonly string[] = Object.keys(schedulers);

export { schedulerNamed } from './names.js';

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

/** Prediction type of the model that a `scheduler_config.json` belongs to. */
export function predictionOf(config: unknown): Prediction {
  return parseSchedulerConfig(noiseScheduleSchema, config).prediction_type;
}
