import { z } from 'zod';

/** A whole number with a default and bounds. */
export function count(fallback: number, min: number, max: number) {
  return z.coerce.number().int().min(min).max(max).default(fallback);
}

/** Variables of the server and of the bridge alike. */
export const sharedVariables = {
  AUTH_TOKEN: z.string().min(8).optional().describe('Bearer token that every call must carry; unset: none.'),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info').describe('What is logged.'),
} as const;
