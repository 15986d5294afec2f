import { InferenceError } from '../../errors.js';
import type { GenerationRequest } from '../pipeline.js';

/** Finds what is wrong with a side of a result in pixels. @param field its name in the API. @returns undefined if nothing is */
export function multipleProblem(field: string, value: number, multiple: number): string | undefined {
  const below = value - (value % multiple);
  if (below === value) return undefined;
  return `${field} ${value} must be a multiple of ${multiple}; use ${below} or ${below + multiple}`;
}

/**
 * The same check with the loaded model: a request that came before it was loaded was held to its family's multiple.
 * @throws InferenceError INVALID_REQUEST
 */
export function assertSizeMultiple({ width, height }: GenerationRequest, multiple: number): void {
  const violations = Object.entries({ width, height }).flatMap(([field, value]) => {
    const description = multipleProblem(field, value, multiple);
    return description === undefined ? [] : [{ field, description }];
  });
  if (violations.length === 0) return;
  const message = violations.map(({ description }) => description).join('; ');
  throw new InferenceError('INVALID_REQUEST', message, { violations });
}
