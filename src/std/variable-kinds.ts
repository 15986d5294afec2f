import { z } from 'zod';

/** A path, or nothing. */
export const path = z.string().min(1).optional();

/** A whole number with a default and bounds. */
export function count(fallback: number, min: number, max: number) {
  return z.coerce.number().int().min(min).max(max).default(fallback);
}

/** The name that requests use for a model. */
export function modelName(fallback: string) {
  return z
    .string()
    .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be lower-case letters, digits, ".", "_" and "-"')
    .default(fallback)
    .describe('Name that requests use for this model.');
}

/** `true` or `false`, or nothing. */
export const flag = z.enum(['true', 'false']).optional();
