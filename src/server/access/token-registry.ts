import { timingSafeEqual } from 'node:crypto';
import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';
import { watchFiles } from '../../std/watch-files.js';
import { type Caller, operator } from './caller.js';
import { hashToken, readTokenFile, type TokenEntry } from './token-file.js';

/** Tokens that are in no file. They may do everything. */
export interface OperatorTokens {
  /** AUTH_TOKEN. */
  readonly operator?: string | undefined;
  /** That of a client in the server's own process. It does not make other calls need one. */
  readonly own?: string | undefined;
}

interface FileToken {
  readonly hash: Buffer;
  readonly entry: TokenEntry;
  readonly caller: Caller;
}

/** The tokens that a server takes. It reads their file again when that changes; a file with mistakes changes nothing. */
export class TokenRegistry {
  readonly #operators: readonly Buffer[];
  #tokens: readonly FileToken[] = [];
  #isClosed: boolean;
  #stop: (() => void) | undefined;

  constructor({ operator, own }: OperatorTokens = {}) {
    this.#operators = [operator, own].flatMap((token) => (token === undefined ? [] : [hashToken(token)]));
    this.#isClosed = operator !== undefined;
  }

  /**
   * Takes the tokens of a file, too, from now on.
   * @throws InferenceError INVALID_REQUEST with every fault of the file
   */
  async follow(path: string, log: Logger): Promise<void> {
    // First the watch: a change between the two is not missed.
    this.#stop = watchFiles([path], () => {
      readTokenFile(path).then(
        (entries) => {
          this.#use(entries);
          log.info({ tokens: entries.length }, 'token file was read again');
        },
        (error: unknown) => {
          log.error(
            { problem: InferenceError.from(error).message },
            'token file is not used; the tokens stay as they were',
          );
        },
      );
    });
    try {
      this.#use(await readTokenFile(path));
    } catch (error) {
      this.#stop();
      throw error;
    }
    this.#isClosed = true;
  }

  /** Ends the watch of the file. */
  close(): void {
    this.#stop?.();
  }

  /**
   * Finds who makes a call. It compares hashes in constant time, and always all of them.
   * @param authorization the call's metadata of this name
   * @returns UNAUTHENTICATED for a missing, unknown, expired or revoked token
   */
  authenticate(authorization: string | undefined): Caller | InferenceError {
    if (!this.#isClosed) return operator;
    const token = /^bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
    if (token === undefined) {
      return unauthenticated('the call needs the metadata "authorization: Bearer <token>" with a token of this server');
    }
    const hash = hashToken(token);
    let isOperator = false;
    for (const known of this.#operators) if (timingSafeEqual(known, hash)) isOperator = true;
    let found: FileToken | undefined;
    for (const known of this.#tokens) if (timingSafeEqual(known.hash, hash)) found = known;
    if (isOperator) return operator;
    if (found === undefined) return unauthenticated('the token of the call is not one of this server');
    const { entry, caller } = found;
    if (entry.revoked !== undefined)
      return unauthenticated(`token "${entry.name}" was revoked at ${entry.revoked}`, entry.name);
    if (entry.expires !== undefined && Date.parse(entry.expires) <= Date.now()) {
      return unauthenticated(
        `token "${entry.name}" expired at ${entry.expires}; make a new one: darkroom tokens add`,
        entry.name,
      );
    }
    return caller;
  }

  #use(entries: readonly TokenEntry[]): void {
    this.#tokens = entries.map((entry) => {
      const { name, scopes, limits, sha256 } = entry;
      return { hash: Buffer.from(sha256, 'hex'), entry, caller: { name, scopes, limits } };
    });
  }
}

function unauthenticated(message: string, token?: string): InferenceError {
  return new InferenceError('UNAUTHENTICATED', message, token === undefined ? {} : { info: { token } });
}
