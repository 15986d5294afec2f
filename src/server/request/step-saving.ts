import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { titlesOf } from '../../pipelines/family.js';
import type { VideoRequest } from '../../pipelines/pipeline.js';
import type { Check } from './field-checks.js';
import { checkRange } from './plan-range.js';
import type { RequestContext } from './request-context.js';

/** Checks the fields that save denoising steps. @returns an empty object where the request saves none */
export function planStepSaving(
  { guidanceInterval, reuseThreshold }: GenerateRequest,
  { families, model: { family } }: RequestContext,
  check: Check,
): Pick<VideoRequest, 'guidanceInterval' | 'reuseThreshold'> {
  if (!family.takes.stepSaving) {
    const takers = titlesOf(families, ({ takes }) => takes.stepSaving);
    const remedy = `is for ${takers}; leave it out for ${family.title}`;
    check(guidanceInterval === undefined, 'guidance_interval', `guidance_interval ${remedy}`);
    check(reuseThreshold === 0, 'reuse_threshold', `reuse_threshold ${remedy}`);
    return {};
  }
  const interval = checkRange('guidance_interval', guidanceInterval, check);
  check(
    reuseThreshold >= 0 && reuseThreshold <= 1,
    'reuse_threshold',
    `reuse_threshold ${reuseThreshold} must be >= 0 and <= 1; 0 is off`,
  );
  return {
    ...(guidanceInterval && { guidanceInterval: interval }),
    ...(reuseThreshold > 0 && { reuseThreshold }),
  };
}
