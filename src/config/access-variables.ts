import { z } from 'zod';
import { count, flag, path } from '../std/variable-kinds.js';

/** Variables of the server that say who may call it. */
export const accessVariables = {
  TLS_CERT: path.describe(
    "PEM file with the server's certificate and those that lead to its authority. It is read again when it changes. Unset: no TLS.",
  ),
  TLS_KEY: path.describe('PEM file with the private key of TLS_CERT. Required with it.'),
  TLS_CLIENT_CA: path.describe(
    'PEM file with the authorities of client certificates. Set: a client without such a certificate cannot connect (mutual TLS).',
  ),
  TOKENS_FILE: path.describe(
    'File with the tokens that calls may carry, written by "darkroom tokens". It is read again when it changes. Unset: only AUTH_TOKEN.',
  ),
  ALLOW_INSECURE: flag.describe(
    'true lets the server listen on an address that is not loopback without TLS and without tokens. Set it only in a closed network.',
  ),
  HEALTH: z
    .enum(['open', 'token'])
    .default('open')
    .describe('Who may call the health service. open: everybody. token: calls need a token.'),
  REFLECTION: z
    .enum(['open', 'token', 'off'])
    .default('open')
    .describe('Who may call the reflection service. open: everybody. token: calls need a token. off: nobody.'),
  AUDIT_FILE: path.describe(
    'File that gets a JSON line for every admin call, every call refused for its token, and every policy refusal. Unset: none.',
  ),
  AUDIT_MAX_BYTES: count(64 * 1024 * 1024, 1024, 2 ** 40).describe(
    'Size at which the audit file is renamed to AUDIT_FILE with the time as its suffix, in bytes. No file is deleted.',
  ),
} as const;
