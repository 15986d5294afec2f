import { type ChannelCredentials, credentials, experimental } from '@grpc/grpc-js';
import { type CertificateFiles, type FileVariables, WatchedCertificates } from '../rpc/certificates.js';

const VARIABLES: FileVariables = { certificate: 'DARKROOM_CERT', key: 'DARKROOM_KEY', authorities: 'DARKROOM_CA' };

/** How a client proves who the server is, and who itself is. */
export interface TlsOptions extends CertificateFiles {
  /** Name that the server's certificate must have, where it is not that of the address. */
  readonly serverName?: string | undefined;
}

export interface ClientCredentials {
  readonly channel: ChannelCredentials;
  close(): void;
}

/**
 * The credentials of a channel. Without authorities, those of the system count. Files are read again when they change.
 * @throws InferenceError INVALID_REQUEST for certificates that cannot be used
 */
export function clientCredentials(tls: TlsOptions | undefined): ClientCredentials {
  if (tls === undefined) return { channel: credentials.createInsecure(), close() {} };
  const { certificate, key, authorities } = tls;
  if (authorities === undefined && certificate === undefined) return { channel: credentials.createSsl(), close() {} };
  const certificates = new WatchedCertificates({ certificate, key, authorities }, { variables: VARIABLES });
  const channel = experimental.createCertificateProviderChannelCredentials(
    certificates,
    certificate === undefined ? null : certificates,
  );
  return { channel, close: () => certificates.close() };
}
