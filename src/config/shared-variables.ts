import { z } from 'zod';

/** Variables of both the server and the bridge. */
export const sharedVariables = {
  AUTH_TOKEN: z
    .string()
    .min(8)
    .optional()
    .describe('Bearer token that every call must carry, at least 8 characters. Unset: calls need none.'),
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'silent'])
    .default('info')
    .describe('Lowest level that is logged.'),
} as const;
