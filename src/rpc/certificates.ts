import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, rootCertificates, type SecureContextOptions } from 'node:tls';
import type { experimental } from '@grpc/grpc-js';
import { InferenceError } from '../errors.js';
import { watchFiles } from '../std/watch-files.js';

/** PEM files of one side of a connection. */
export interface CertificateFiles {
  /** Certificate, with those that lead to its authority. */
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  /** Certificates of the authorities that the other side's certificate may come from. */
  readonly authorities?: string | undefined;
}

/** The authorities that Node trusts, for a client with a certificate of its own and none of an authority. */
const SYSTEM_AUTHORITIES: experimental.CaCertificateUpdate = {
  caCertificate: Buffer.from(rootCertificates.join('\n')),
};

/** Names of the variables that name the files, for messages. */
export type FileVariables = Readonly<Record<keyof CertificateFiles, string>>;

export interface WatchOptions {
  readonly variables: FileVariables;
  /** Called when the files changed: without a problem, new connections use them; with one, they use those from before. */
  readonly onChange?: (problem?: string) => void;
  /** Called with what is wrong with files that are used all the same: a certificate that has expired. */
  readonly onWarning?: (problem: string) => void;
}

interface Loaded {
  readonly identity: experimental.IdentityCertificateUpdate | null;
  readonly authorities: experimental.CaCertificateUpdate;
  /** The certificate of the pair. */
  readonly certificate?: X509Certificate;
}

/**
 * Certificates from files, read again when they change. A renewal writes two files, one after the other: a pair that does not
 * fit is not used. grpc-js' own watcher passes such a pair on, and takes the certificate away while a file is missing.
 */
export class WatchedCertificates implements experimental.CertificateProvider {
  readonly #files: CertificateFiles;
  readonly #options: WatchOptions;
  readonly #identityListeners = new Set<experimental.IdentityCertificateUpdateListener>();
  readonly #authorityListeners = new Set<experimental.CaCertificateUpdateListener>();
  readonly #stop: () => void;
  #loaded: Loaded;

  /** @throws InferenceError INVALID_REQUEST for files that cannot be read or do not fit */
  constructor(files: CertificateFiles, options: WatchOptions) {
    this.#files = files;
    this.#options = options;
    this.#loaded = load(files, options.variables);
    this.#warn();
    const paths = Object.values(files).filter((path) => path !== undefined);
    this.#stop = watchFiles(paths, () => this.#reload());
  }

  /** Ends the watch. */
  close(): void {
    this.#stop();
  }

  addIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.add(listener);
    // grpc-js adds the listener before it is ready for a call.
    process.nextTick(listener, this.#loaded.identity);
  }

  removeIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.delete(listener);
  }

  addCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#authorityListeners.add(listener);
    process.nextTick(listener, this.#loaded.authorities);
  }

  removeCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#authorityListeners.delete(listener);
  }

  #reload(): void {
    try {
      this.#loaded = load(this.#files, this.#options.variables);
    } catch (error) {
      this.#options.onChange?.(InferenceError.from(error).message);
      return;
    }
    for (const listener of this.#identityListeners) listener(this.#loaded.identity);
    for (const listener of this.#authorityListeners) listener(this.#loaded.authorities);
    this.#options.onChange?.();
    this.#warn();
  }

  #warn(): void {
    const { certificate: { validFrom, validTo } = {} } = this.#loaded;
    const variable = this.#options.variables.certificate;
    const now = Date.now();
    if (validTo !== undefined && Date.parse(validTo) <= now)
      this.#options.onWarning?.(`the certificate in ${variable} expired on ${validTo}; renew it`);
    else if (validFrom !== undefined && Date.parse(validFrom) > now)
      this.#options.onWarning?.(`the certificate in ${variable} is valid from ${validFrom} on; look at the clock`);
  }
}

function load({ certificate, key, authorities }: CertificateFiles, variables: FileVariables): Loaded {
  const caCertificate = authorities && read(authorities, variables.authorities);
  if (caCertificate) parse(caCertificate, variables.authorities);
  if ((certificate === undefined) !== (key === undefined)) {
    throw invalid(`${variables.certificate} and ${variables.key} must be set together, or both unset`);
  }
  const trusted = caCertificate ? { caCertificate } : SYSTEM_AUTHORITIES;
  if (authorities !== undefined) assertUsable({ ca: caCertificate }, variables.authorities);
  if (certificate === undefined || key === undefined) return { identity: null, authorities: trusted };
  const pair = { certificate: read(certificate, variables.certificate), privateKey: read(key, variables.key) };
  const parsed = parse(pair.certificate, variables.certificate);
  if (!parsed.checkPrivateKey(parseKey(pair.privateKey, variables.key))) {
    throw invalid(`${variables.key} is not the key of the certificate in ${variables.certificate}`);
  }
  assertUsable({ cert: pair.certificate, key: pair.privateKey }, variables.certificate);
  return { identity: pair, authorities: trusted, certificate: parsed };
}

/** What OpenSSL refuses, such as a short key or damage in a chain, grpc-js would only find when it takes no connection. */
function assertUsable(options: SecureContextOptions, variable: string): void {
  try {
    createSecureContext(options);
  } catch (error) {
    throw invalid(`the files of ${variable} cannot be used for TLS: ${(error as Error).message}`, error);
  }
}

function read(path: string, variable: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw invalid(`${variable} "${path}" cannot be read: ${(error as Error).message}`, error);
  }
}

function parse(pem: Buffer, variable: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw invalid(`${variable} has no certificate; it must be a PEM file with -----BEGIN CERTIFICATE-----`, error);
  }
}

function parseKey(pem: Buffer, variable: string): ReturnType<typeof createPrivateKey> {
  try {
    return createPrivateKey(pem);
  } catch (error) {
    throw invalid(`${variable} has no private key without a passphrase; it must be a PEM file`, error);
  }
}

function invalid(message: string, cause?: unknown): InferenceError {
  return new InferenceError('INVALID_REQUEST', message, { cause });
}
