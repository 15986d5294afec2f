import type { Config } from '../../config/server-config.js';
import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { NO_PRESET, type SamplingPreset } from '../../pipelines/common/sampling-preset.js';
import { type AnyFamily, titlesOf } from '../../pipelines/family.js';
import type { DynamicThresholding, ModelInfo } from '../../pipelines/pipeline.js';
import { type Check, checkLimit } from './field-checks.js';
import { nearestNames } from './nearest-names.js';
import type { PlannedReferences } from './planned-references.js';
import type { Preset } from './presets.js';
import type { RequestContext } from './request-context.js';

const MAX_GUIDANCE = 50;

/** The settings of a distilled model that a request names, else those that the operator chose; undefined for none. */
export function planSamplingPreset(
  { samplingPreset: requested }: GenerateRequest,
  { config, families, model: { family } }: RequestContext,
  check: Check,
): NamedPreset | undefined {
  const presets = family.samplingPresets;
  const name = requested || family.samplingPreset?.(config) || NO_PRESET;
  if (name === NO_PRESET) return undefined;
  const names = Object.keys(presets);
  const takers = titlesOf(families, ({ samplingPresets }) => Object.keys(samplingPresets).length > 0);
  const preset = names.includes(name) ? presets[name] : undefined;
  check(
    preset !== undefined,
    'sampling_preset',
    names.length === 0
      ? `sampling_preset is for ${takers}; leave it out for ${family.title}`
      : `sampling_preset "${name.slice(0, 64)}" must be one of ${[...names, NO_PRESET].join(', ')}`,
  );
  return preset && { name, ...preset };
}

export interface NamedPreset extends SamplingPreset {
  readonly name: string;
}

/** Denoising steps: the request's, else the preset's. Refused steps are replaced, so that no field that depends on them is refused too. */
export function planSteps(
  request: GenerateRequest,
  preset: Pick<Preset, 'steps'> | undefined,
  { LIMIT_STEPS }: Config,
  check: Check,
): number {
  const steps = request.steps ?? preset?.steps ?? 1;
  checkLimit('steps', steps, { min: 1, max: LIMIT_STEPS, variable: 'LIMIT_STEPS' }, check);
  return steps >= 1 && steps <= LIMIT_STEPS ? steps : LIMIT_STEPS;
}

/** Checks steps of a scheduler that has a largest number of them. */
export function checkSteps(field: string, steps: number, scheduler: string, info: ModelInfo, check: Check): void {
  const most = info.maxSteps?.[scheduler] ?? Number.POSITIVE_INFINITY;
  check(steps <= most, field, `${field} ${steps} must be <= ${most} for the scheduler ${scheduler}`);
}

/**
 * The guidance scale: the request's, else a distilled model's, else what a reference makes of it, else the job type's. A refused scale is
 * replaced, so that no field that depends on it is refused too.
 */
export function planGuidance(
  request: GenerateRequest,
  { preset, sampling, references }: GuidanceSources,
  family: AnyFamily,
  check: Check,
): number {
  const byReference = references && family.references.guidanceScale?.(references.strength);
  const guidanceScale = request.guidanceScale ?? sampling?.guidanceScale ?? byReference ?? preset?.guidanceScale ?? 1;
  const isScale = guidanceScale >= 0 && guidanceScale <= MAX_GUIDANCE;
  check(isScale, 'guidance_scale', `guidance_scale ${guidanceScale} must be >= 0 and <= ${MAX_GUIDANCE}`);
  return isScale ? guidanceScale : MAX_GUIDANCE;
}

interface GuidanceSources {
  readonly preset: Preset | undefined;
  readonly sampling: SamplingPreset | undefined;
  readonly references: PlannedReferences | undefined;
}

/** How much guidance keeps of the conditional output's deviation. */
export function planGuidanceRescale(
  { guidanceRescale: share = 0 }: GenerateRequest,
  { families, model: { family } }: RequestContext,
  check: Check,
): number {
  const takers = titlesOf(families, ({ takes }) => takes.guidanceRescale);
  const isTaken = share === 0 || family.takes.guidanceRescale;
  check(isTaken, 'guidance_rescale', `guidance_rescale is for ${takers}; leave it out for ${family.title}`);
  if (!isTaken) return 0;
  check(share >= 0 && share <= 1, 'guidance_rescale', `guidance_rescale ${share} must be >= 0 and <= 1`);
  return share;
}

/** Guidance with the range of values of a lower scale. @returns undefined if the request has none */
export function planThresholding(
  { dynamicThresholding }: GenerateRequest,
  guidanceScale: number,
  { families, model: { family } }: RequestContext,
  check: Check,
): DynamicThresholding | undefined {
  if (dynamicThresholding === undefined) return undefined;
  const field = 'dynamic_thresholding';
  const takers = titlesOf(families, ({ takes }) => takes.dynamicThresholding);
  check(family.takes.dynamicThresholding, field, `${field} is for ${takers}; leave it out for ${family.title}`);
  if (!family.takes.dynamicThresholding) return undefined;
  const { mimicScale = 7, percentile = 1 } = dynamicThresholding;
  const isScale = mimicScale >= 0 && mimicScale <= MAX_GUIDANCE;
  check(isScale, `${field}.mimic_scale`, `${field}.mimic_scale ${mimicScale} must be >= 0 and <= ${MAX_GUIDANCE}`);
  const isShare = percentile >= 0 && percentile <= 1;
  check(isShare, `${field}.percentile`, `${field}.percentile ${percentile} must be >= 0 and <= 1`);
  const isGuided = guidanceScale > 1;
  check(
    isGuided,
    field,
    `${field} needs a guidance_scale above 1; raise guidance_scale ${guidanceScale} or leave it out`,
  );
  return { mimicScale, percentile };
}

const MAX_DEEP_CACHE_INTERVAL = 10;

/** Calls of the denoiser from one whole one to the next; 1 where all are whole. */
export function planDeepCache(
  { deepCacheInterval: interval }: GenerateRequest,
  { families, model: { family } }: RequestContext,
  check: Check,
): number {
  const takers = titlesOf(families, ({ takes }) => takes.deepCache);
  const isTaken = interval <= 1 || family.takes.deepCache;
  check(isTaken, 'deep_cache_interval', `deep_cache_interval is for ${takers}; leave it out for ${family.title}`);
  if (!isTaken) return 1;
  const isFew = interval <= MAX_DEEP_CACHE_INTERVAL;
  check(
    isFew,
    'deep_cache_interval',
    `deep_cache_interval ${interval} must be <= ${MAX_DEEP_CACHE_INTERVAL}; 0 is off`,
  );
  return interval || 1;
}

/** Most schedulers that a message names. */
const NAMED_SCHEDULERS = 5;

/** The scheduler by the family's own name for it. */
export function planScheduler(
  request: GenerateRequest,
  sampling: SamplingPreset | undefined,
  { schedulers }: AnyFamily,
  check: Check,
): string {
  const requested = request.scheduler || sampling?.scheduler || schedulers.default;
  const scheduler = schedulers.resolve(requested) ?? '';
  if (scheduler === '')
    check(false, 'scheduler', `scheduler "${requested.slice(0, 64)}" ${schedulerBound(requested, schedulers.names)}`);
  return scheduler;
}

function schedulerBound(requested: string, names: readonly string[]): string {
  if (names.length <= NAMED_SCHEDULERS) return `must be one of ${names.join(', ')}`;
  const nearest = nearestNames(requested, names, NAMED_SCHEDULERS);
  return `is not known; the nearest are ${nearest.join(', ')}, and ListModels has all ${names.length}`;
}
