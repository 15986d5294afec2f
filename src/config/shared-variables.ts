import { z } from 'zod';

/** Variables of the server and of the bridge alike. */
export const sharedVariables = {
  AUTH_TOKEN: z.string().min(8).optional().describe('Bearer token that every call must carry; unset: none.'),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info').describe('What is logged.'),
} as const;
