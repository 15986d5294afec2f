import type { Config } from '../../config/server-config.js';
import type { Logger } from '../../log.js';
import { AuditLog } from './audit-log.js';
import { assertListenable, createListener, type Listener } from './listener.js';
import { Quotas } from './quotas.js';
import { TokenRegistry } from './token-registry.js';

/** Who may call a server, what they may ask for, and the record of it. */
export interface Access {
  readonly listener: Listener;
  readonly tokens: TokenRegistry;
  readonly quotas: Quotas;
  /** Undefined where AUDIT_FILE is unset. */
  readonly audit: AuditLog | undefined;
  /** Ends the watches of files, and writes the last audit entries. */
  close(): Promise<void>;
}

/**
 * @param ownToken token of a client in the same process
 * @throws InferenceError INVALID_REQUEST for an address that is open to everybody, and for files that cannot be used
 */
export async function openAccess(config: Config, log: Logger, ownToken?: string): Promise<Access> {
  assertListenable(config, log);
  const { AUDIT_FILE, AUDIT_MAX_BYTES, AUTH_TOKEN, TOKENS_FILE } = config;
  const audit =
    AUDIT_FILE === undefined ? undefined : await AuditLog.open(AUDIT_FILE, { maxBytes: AUDIT_MAX_BYTES, log });
  const tokens = new TokenRegistry({ operator: AUTH_TOKEN, own: ownToken });
  if (TOKENS_FILE !== undefined) await tokens.follow(TOKENS_FILE, log);
  const listener = createListener(config, log);
  return {
    listener,
    tokens,
    quotas: new Quotas(),
    audit,
    async close() {
      listener.close();
      tokens.close();
      await audit?.close();
    },
  };
}
