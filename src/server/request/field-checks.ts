import { type FieldViolation, InferenceError } from '../../errors.js';

/**
 * Records a violation of a field unless a condition holds. `field`: path as in the proto. `description`: one sentence.
 */
export type Check = (holds: boolean, field: string, description: string) => void;

/** Room for a UUID, a date and a name. Ids become keys of logs and stores. */
const JOB_ID = /^[A-Za-z0-9._:-]{1,128}$/;

export function createCheck(): { readonly check: Check; readonly violations: readonly FieldViolation[] } {
  const violations: FieldViolation[] = [];
  const check: Check = (holds, field, description) => {
    if (!holds) violations.push({ field, description });
  };
  return { check, violations };
}

/** @throws InferenceError INVALID_REQUEST with every recorded violation */
export function assertNoViolations(violations: readonly FieldViolation[]): void {
  if (violations.length === 0) return;
  const all = violations.map(({ description }) => description).join('; ');
  throw new InferenceError('INVALID_REQUEST', `Invalid parameters: ${all}`, { violations });
}

export function checkJobId(jobId: string, check: Check): void {
  check(
    jobId === '' || JOB_ID.test(jobId),
    'job_id',
    'job_id must be 1 to 128 letters, digits, ".", "_", ":" or "-"; leave it empty to have one chosen',
  );
}

const MAX_LABELS = 64;
const MAX_LABEL_BYTES = 1024;

export function checkLabels(labels: Readonly<Record<string, string>>, check: Check): void {
  const entries = Object.entries(labels);
  check(
    entries.length <= MAX_LABELS && entries.every((entry) => Buffer.byteLength(entry.join('')) <= MAX_LABEL_BYTES),
    'labels',
    `labels must be at most ${MAX_LABELS} entries of ${MAX_LABEL_BYTES} bytes`,
  );
}

/** @param variable the operator's, which sets `max` */
export function checkLimit(
  field: string,
  value: number,
  { min, max, variable }: { readonly min: number; readonly max: number; readonly variable: string },
  check: Check,
): void {
  const remedy = value > max ? `; lower it or raise ${variable}` : '';
  check(value >= min && value <= max, field, `${field} ${value} must be >= ${min} and <= ${max}${remedy}`);
}

/** @param limit in bytes: LIMIT_PROMPT_BYTES */
export function checkText(field: string, text: string, limit: number, check: Check): void {
  const bytes = Buffer.byteLength(text);
  check(
    bytes <= limit,
    field,
    `${field} of ${bytes} bytes must be <= ${limit}; shorten it or raise LIMIT_PROMPT_BYTES`,
  );
  check(!text.includes('\0'), field, `${field} has a NUL character; remove it`);
}
