import type { PrecisionName } from '../../device.js';
import { InferenceError } from '../../errors.js';

/** NOT_FINITE of one network, with the step where it has one, and what to do about it. */
export class NotFiniteError extends InferenceError {
  readonly network: string;
  readonly precision: PrecisionName;
  /** The message without what to do. */
  readonly fact: string;

  constructor(network: string, precision: PrecisionName, place = '', options?: ErrorOptions) {
    const isWide = precision === 'fp32';
    const remedy = isWide ? 'check the checkpoint and its LoRAs' : 'set PRECISION=fp32';
    const retry = place === '' ? '' : `try another seed or a smaller guidance scale, ${isWide ? 'and' : 'or'} `;
    const fact = `${network} computed numbers that are not finite${place}`;
    super('NOT_FINITE', `${fact}; ${retry}${remedy}`, options);
    this.fact = fact;
    this.network = network;
    this.precision = precision;
  }
}

export function isNotFinite(error: unknown): error is NotFiniteError {
  return error instanceof NotFiniteError;
}

/** True for numbers that are not finite in half precision, and may be in float32. */
export function isTooNarrow(error: unknown): boolean {
  return isNotFinite(error) && error.precision !== 'fp32';
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
    const { network, precision } = error;
    throw new NotFiniteError(network, precision, ` in step ${step + 1} of ${steps}`, { cause: error });
  }
}
