import type { GuidanceInterval } from '../../pipelines/pipeline.js';
import type { Check } from './field-checks.js';

interface Range {
  readonly start?: number | undefined;
  readonly end?: number | undefined;
}

export function isShare(value: number): boolean {
  return value >= 0 && value <= 1;
}

/** Checks a range of the steps; all of them where an end is unset. @param field its name in the API */
export function checkRange(field: string, range: Range | undefined, check: Check): GuidanceInterval {
  const { start = 0, end = 1 } = range ?? {};
  for (const [side, value] of Object.entries({ start, end })) {
    const name = `${field}.${side}`;
    check(isShare(value), name, `${name} ${value} must be >= 0 and <= 1`);
  }
  const isOrdered = !isShare(start) || !isShare(end) || start <= end;
  check(isOrdered, `${field}.start`, `${field}.start ${start} must be <= ${field}.end ${end}`);
  return { start, end };
}
