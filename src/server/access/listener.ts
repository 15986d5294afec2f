import { experimental, ServerCredentials } from '@grpc/grpc-js';
import type { Config } from '../../config/server-config.js';
import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';
import { WatchedCertificates } from '../../rpc/certificates.js';
import { isLoopback, withoutPort } from '../../std/address.js';

const VARIABLES = { certificate: 'TLS_CERT', key: 'TLS_KEY', authorities: 'TLS_CLIENT_CA' } as const;

type AccessConfig = Pick<
  Config,
  'DARKROOM_LISTEN' | 'TLS_CERT' | 'TLS_KEY' | 'TLS_CLIENT_CA' | 'AUTH_TOKEN' | 'TOKENS_FILE' | 'ALLOW_INSECURE'
>;

/**
 * Refuses to listen for other machines where anybody could read or make calls.
 * @throws InferenceError INVALID_REQUEST for an address that is not loopback, without TLS and without tokens
 */
export function assertListenable(config: AccessConfig, log: Logger): void {
  const { DARKROOM_LISTEN, TLS_CERT, TLS_CLIENT_CA, AUTH_TOKEN, TOKENS_FILE, ALLOW_INSECURE } = config;
  if (isLoopback(withoutPort(DARKROOM_LISTEN))) return;
  const hasTokens = AUTH_TOKEN !== undefined || TOKENS_FILE !== undefined || TLS_CLIENT_CA !== undefined;
  const hasTls = TLS_CERT !== undefined;
  if (!hasTokens && !hasTls && ALLOW_INSECURE !== 'true') {
    throw new InferenceError(
      'INVALID_REQUEST',
      `DARKROOM_LISTEN ${DARKROOM_LISTEN} takes calls from other machines, without TLS and without tokens; ` +
        'set TLS_CERT and TLS_KEY, or TOKENS_FILE, or ALLOW_INSECURE=true if the network is closed to others',
    );
  }
  const open = [...(hasTls ? [] : ['TLS_CERT and TLS_KEY']), ...(hasTokens ? [] : ['TOKENS_FILE'])];
  if (open.length === 0) return;
  log.warn(
    { address: DARKROOM_LISTEN, unset: open },
    hasTls ? 'everybody who reaches this address may make calls' : 'calls and tokens cross the network in the clear',
  );
}

export interface Listener {
  readonly credentials: ServerCredentials;
  readonly isEncrypted: boolean;
  close(): void;
}

/**
 * The credentials that the server listens with: TLS as far as the configuration has certificates.
 * @throws InferenceError INVALID_REQUEST for certificates that cannot be used
 */
export function createListener(config: AccessConfig, log: Logger): Listener {
  const { TLS_CERT: certificate, TLS_KEY: key, TLS_CLIENT_CA: authorities } = config;
  if (certificate === undefined && key === undefined) {
    if (authorities !== undefined) {
      throw new InferenceError('INVALID_REQUEST', 'TLS_CLIENT_CA needs TLS: set TLS_CERT and TLS_KEY, too');
    }
    return { credentials: ServerCredentials.createInsecure(), isEncrypted: false, close() {} };
  }
  const certificates = new WatchedCertificates(
    { certificate, key, authorities },
    {
      variables: VARIABLES,
      onChange: (problem) =>
        problem === undefined
          ? log.info('certificates were read again')
          : log.error({ problem }, 'changed certificates are not used; those from before stay'),
      onWarning: (problem) => log.warn({ problem }, 'clients refuse the certificate'),
    },
  );
  // grpc-js 1.14 names the first two parameters the other way round.
  const credentials = experimental.createCertificateProviderServerCredentials(
    certificates,
    authorities === undefined ? null : certificates,
    authorities !== undefined,
  );
  return { credentials, isEncrypted: true, close: () => certificates.close() };
}
