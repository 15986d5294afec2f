import { InferenceError } from '../../errors.js';

export function isNotFinite(error: unknown): boolean {
  return error instanceof InferenceError && error.reason === 'NOT_FINITE';
}

/**
 * Runs a step of a loop.
 * @param step from 0
 * @throws InferenceError NOT_FINITE that names the step as well as the network
 */
export async function atStep<T>(step: number, steps: number, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!isNotFinite(error)) throw error;
    const { message } = error as InferenceError;
    throw new InferenceError(
      'NOT_FINITE',
      `${message} in step ${step + 1} of ${steps}; try another seed or a smaller guidance scale, or set PRECISION=fp32`,
      { cause: error },
    );
  }
}
