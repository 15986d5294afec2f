import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import type { ClipRequest, Family } from '../../pipelines/pipeline.js';
import type { Check } from './field-checks.js';

/** Checks what a request says about saving steps. @returns nothing where it saves none: the default is to be left untouched */
export function planStepSaving(
  { guidanceInterval, reuseThreshold }: GenerateRequest,
  family: Family,
  check: Check,
): Pick<ClipRequest, 'guidanceInterval' | 'reuseThreshold'> {
  const { start = 0, end = 1 } = guidanceInterval ?? {};
  if (family !== 'wan') {
    const isUnset = guidanceInterval === undefined;
    check(isUnset, 'guidance_interval', 'guidance_interval is for WAN; leave it out for SDXL');
    check(reuseThreshold === 0, 'reuse_threshold', 'reuse_threshold is for WAN; leave it out for SDXL');
    return {};
  }
  for (const [field, value] of Object.entries({ start, end })) {
    const name = `guidance_interval.${field}`;
    check(value >= 0 && value <= 1, name, `${name} ${value} must be >= 0 and <= 1`);
  }
  check(
    !(start > end),
    'guidance_interval.start',
    `guidance_interval.start ${start} must be <= guidance_interval.end ${end}`,
  );
  check(
    reuseThreshold >= 0 && reuseThreshold <= 1,
    'reuse_threshold',
    `reuse_threshold ${reuseThreshold} must be >= 0 and <= 1; 0 is off`,
  );
  return {
    ...(guidanceInterval && { guidanceInterval: { start, end } }),
    ...(reuseThreshold > 0 && { reuseThreshold }),
  };
}
