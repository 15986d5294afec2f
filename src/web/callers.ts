import { createHash, randomBytes } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { type DarkroomClient, serverStatus, withToken } from '../client/client.js';
import { InferenceError } from '../errors.js';
import { ExpiringMap } from '../std/expiring-map.js';

/** Longest wait for the answer of a short call, in ms. */
export const ANSWER_MS = 10_000;
/** Time for which a server that checks tokens is trusted to go on so, in ms. */
const TRUST_MS = 60_000;

/** The token of a request; undefined if it has none. */
export function bearerOf({ headers }: Pick<FastifyRequest, 'headers'>): string | undefined {
  return /^Bearer +([^\s]+) *$/i.exec(headers.authorization ?? '')?.[1];
}

/** Gives every request a client that carries its token. */
export class Callers {
  readonly #client: DarkroomClient;
  readonly #needsToken: boolean;
  /** On the clock of `performance`. */
  #trustedUntil = 0;
  /** Hashes of tokens that the server knows. */
  readonly #known = new ExpiringMap<string, true>(1024, TRUST_MS);

  /** @param needsToken true: requests bring a token of their own, and the client's is never used for them */
  constructor(client: DarkroomClient, needsToken: boolean) {
    this.#client = client;
    this.#needsToken = needsToken;
  }

  /** @throws InferenceError UNAUTHENTICATED without a token; PERMISSION_DENIED if the server would take any */
  async clientOf(request: Pick<FastifyRequest, 'headers'>): Promise<DarkroomClient> {
    const token = bearerOf(request);
    if (!this.#needsToken) return token === undefined ? this.#client : withToken(this.#client, token);
    if (token === undefined) {
      throw new InferenceError('UNAUTHENTICATED', 'this address needs a token: send "authorization: Bearer <token>"');
    }
    await this.#assertTokensAreChecked();
    return withToken(this.#client, token);
  }

  /**
   * Checks the token of a request before its body is read: strangers cannot fill the memory.
   * @throws InferenceError UNAUTHENTICATED, or PERMISSION_DENIED if the server would take any token
   */
  async assertKnown(request: Pick<FastifyRequest, 'headers'>): Promise<void> {
    if (!this.#needsToken) return;
    const client = await this.clientOf(request);
    const key = createHash('sha256')
      .update(bearerOf(request) ?? '')
      .digest('hex');
    if (this.#known.has(key)) return;
    try {
      await serverStatus(client, ANSWER_MS);
    } catch (error) {
      // Its scopes may not allow this call; the server knows it all the same.
      if (!(error instanceof InferenceError) || error.reason !== 'PERMISSION_DENIED') throw error;
    }
    this.#known.set(key, true);
  }

  /** A server without tokens would take a made-up one: then anybody who reaches this address could use it. */
  async #assertTokensAreChecked(): Promise<void> {
    if (performance.now() < this.#trustedUntil) return;
    try {
      await serverStatus(withToken(this.#client, randomBytes(24).toString('base64url')), ANSWER_MS);
    } catch (error) {
      if (!(error instanceof InferenceError) || error.reason !== 'UNAUTHENTICATED') throw error;
      this.#trustedUntil = performance.now() + TRUST_MS;
      return;
    }
    throw new InferenceError(
      'PERMISSION_DENIED',
      'the server takes calls without a token, so this address does not pass on any; set TOKENS_FILE or AUTH_TOKEN for the server',
    );
  }
}
