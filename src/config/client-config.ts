import { z } from 'zod';
import type { ConnectOptions } from '../client/client.js';
import { environment } from '../environment.js';
import { flag, path } from '../std/variable-kinds.js';
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
  DARKROOM_TOKEN: z.string().min(1).optional().describe('Bearer token of the calls. Unset: AUTH_TOKEN.'),
  DARKROOM_TOKEN_FILE: path.describe(
    'File with the token, which is read again when it changes. Wins over DARKROOM_TOKEN.',
  ),
  DARKROOM_TLS: flag.describe(
    "true encrypts the connection, and trusts the system's authorities. DARKROOM_CA and DARKROOM_CERT do so, too.",
  ),
  DARKROOM_CA: path.describe(
    "PEM file with the authorities that the server's certificate may come from. Unset: the system's.",
  ),
  DARKROOM_CERT: path.describe("PEM file with the client's certificate, for servers with TLS_CLIENT_CA."),
  DARKROOM_KEY: path.describe('PEM file with the private key of DARKROOM_CERT. Required with it.'),
  DARKROOM_SERVER_NAME: z
    .string()
    .min(1)
    .optional()
    .describe("Name that the server's certificate must have. Unset: the host of DARKROOM_SERVER."),
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

/** How a configuration connects to its servers. */
export function connectOptions(config: ClientConfig): ConnectOptions {
  const { DARKROOM_TLS, DARKROOM_CA, DARKROOM_CERT, DARKROOM_KEY, DARKROOM_SERVER_NAME } = config;
  const isEncrypted = DARKROOM_TLS === 'true' || [DARKROOM_CA, DARKROOM_CERT, DARKROOM_KEY].some(Boolean);
  return {
    token: config.DARKROOM_TOKEN ?? config.AUTH_TOKEN,
    tokenFile: config.DARKROOM_TOKEN_FILE,
    tls: isEncrypted
      ? { authorities: DARKROOM_CA, certificate: DARKROOM_CERT, key: DARKROOM_KEY, serverName: DARKROOM_SERVER_NAME }
      : undefined,
  };
}
