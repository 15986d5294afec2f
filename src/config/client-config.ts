import { z } from 'zod';
import { environment } from '../environment.js';
import { readVariables } from './read-variables.js';
import { sharedVariables } from './shared-variables.js';

/** Variables of everything that calls a server: the commands, and the bridge. */
export const clientVariables = {
  DARKROOM_SERVER: z
    .string()
    .transform((servers) => servers.split(',').flatMap((server) => server.trim() || []))
    .refine(
      (servers) => servers.length > 0 && servers.every((server) => /^.+:\d{1,5}$/.test(server)),
      'must be host:port, several of them separated by commas',
    )
    .prefault('127.0.0.1:50051')
    .describe('Servers that run the jobs: host:port, separated by commas.'),
  AUTH_TOKEN: sharedVariables.AUTH_TOKEN,
} as const;

const clientConfigSchema = z.object(clientVariables);

export type ClientConfig = Readonly<z.infer<typeof clientConfigSchema>>;

/**
 * @param overrides values of the command line; they win over the environment
 * @throws InferenceError INVALID_REQUEST that lists every bad variable
 */
export function readClientConfig(
  env: NodeJS.ProcessEnv = environment(),
  overrides: Readonly<Partial<Record<keyof ClientConfig, string>>> = {},
): ClientConfig {
  return readVariables(clientConfigSchema, { ...env, ...overrides });
}
