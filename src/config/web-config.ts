import { z } from 'zod';
import { environment } from '../environment.js';
import { flag, listenAddress } from '../std/variable-kinds.js';
import { readVariables } from './read-variables.js';
import { sharedVariables } from './shared-variables.js';

/** Variables of `darkroom web` that the other client commands do not have. */
export const webConfigSchema = z.object({
  WEB_LISTEN: listenAddress('127.0.0.1:8080', '127.0.0.1:8080').describe(
    'Address of the page and of HTTP, host:port. Port 0 picks a free port.',
  ),
  WEB_OPENAI: flag.describe("true serves OpenAI's images API under /v1 as well. Unset: it is off."),
  LOG_LEVEL: sharedVariables.LOG_LEVEL,
});

export type WebConfig = Readonly<z.infer<typeof webConfigSchema>>;

/**
 * @param overrides values of the command line; they win over the environment
 * @throws InferenceError INVALID_REQUEST that lists every bad variable
 */
export function readWebConfig(
  env: NodeJS.ProcessEnv = environment(),
  overrides: Readonly<Partial<Record<keyof WebConfig, string>>> = {},
): WebConfig {
  return readVariables(webConfigSchema, { ...env, ...overrides });
}
