import type { GuidanceInterval } from '../../pipelines/pipeline.js';
import type { Check } from './field-checks.js';

interface Range {
  readonly start?: number | undefined;
  readonly end?: number | undefined;
}

/** Checks a range of the steps; all of them where an end is unset. @param field its name in the API */
export function checkRange(field: string, range: Range | undefined, check: Check): GuidanceInterval {
  const { start = 0, end = 1 } = range ?? {};
  for (const [side, value] of Object.entries({ start, end })) {
    const name = `${field}.${side}`;
    check(value >= 0 && value <= 1, name, `${name} ${value} must be >= 0 and <= 1`);
  }
  check(!(start > end), `${field}.start`, `${field}.start ${start} must be <= ${field}.end ${end}`);
  return { start, end };
}
