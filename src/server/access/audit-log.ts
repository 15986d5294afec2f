import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import type { Logger } from '../../log.js';

/**
 * `admin`: a call that only an admin may make, or that touched another token's job. `access`: a call that was refused for its token.
 * `policy`: a prompt or an image that the policy refused.
 */
export type AuditKind = 'admin' | 'access' | 'policy';

export interface AuditEntry {
  readonly kind: AuditKind;
  /** Name of the token; omitted where it is not known. */
  readonly token?: string | undefined;
  /** Address of the client. */
  readonly peer?: string | undefined;
  /** `/package.Service/Method`. */
  readonly method?: string | undefined;
  /** Reason of the error; omitted where the call succeeded. */
  readonly reason?: string | undefined;
  readonly jobId?: string | undefined;
  /** What the call was about: the name of a model, for example. */
  readonly subject?: string | undefined;
  /** Rule that refused. */
  readonly rule?: string | undefined;
  /** SHA-256 of the prompt as the request has it, in hexadecimal digits. */
  readonly promptSha256?: string | undefined;
}

interface AuditOptions {
  /** A file of this size is renamed, and a new one begun, in bytes. */
  readonly maxBytes: number;
  readonly log: Logger;
}

/** Refused calls of one kind are written once within this time, with their number, in ms. */
const WINDOW_MS = 1000;
const MAX_KINDS = 1000;
/** Entries that wait for a disk that takes none. Beyond it they are counted only. */
const MAX_PENDING = 10_000;
const RETRY_MS = 1000;

interface Refusals {
  readonly entry: AuditEntry;
  more: number;
}

/**
 * An append-only file of JSON lines. A full file gets the time as its suffix; none is ever deleted. A file that another program
 * renamed is left alone, and a new one begun. Refused calls of one kind share lines, so that a flood of them fills no disk.
 */
export class AuditLog {
  readonly #path: string;
  readonly #options: AuditOptions;
  readonly #pending: string[] = [];
  readonly #refusals = new Map<string, Refusals>();
  #window: NodeJS.Timeout | undefined;
  #dropped = 0;
  #writing: Promise<void> | undefined;
  #file: FileHandle | undefined;
  #isClosed = false;

  private constructor(path: string, options: AuditOptions) {
    this.#path = path;
    this.#options = options;
  }

  /** @throws InferenceError INVALID_REQUEST for a file that cannot be written */
  static async open(path: string, options: AuditOptions): Promise<AuditLog> {
    const audit = new AuditLog(path, options);
    try {
      await audit.#current();
    } catch (error) {
      throw new InferenceError(
        'INVALID_REQUEST',
        `AUDIT_FILE "${path}" cannot be written: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
    return audit;
  }

  record(entry: AuditEntry): void {
    if (entry.kind !== 'access') {
      this.#append(entry);
      return;
    }
    const { jobId: _, ...kind } = entry;
    const key = JSON.stringify(kind);
    const known = this.#refusals.get(key);
    if (known !== undefined) {
      known.more += 1;
      return;
    }
    if (this.#refusals.size >= MAX_KINDS) this.#endWindow();
    this.#refusals.set(key, { entry: kind, more: 0 });
    this.#append(entry);
    this.#window ??= setTimeout(() => this.#endWindow(), WINDOW_MS).unref();
  }

  /** Writes what waits, and closes the file. */
  async close(): Promise<void> {
    this.#endWindow();
    this.#isClosed = true;
    await this.#writing;
    await this.#file?.close();
  }

  #endWindow(): void {
    clearTimeout(this.#window);
    this.#window = undefined;
    const refusals = [...this.#refusals.values()];
    this.#refusals.clear();
    for (const { entry, more } of refusals) if (more > 0) this.#append(entry, more);
  }

  #append(entry: AuditEntry, count?: number): void {
    if (this.#pending.length >= MAX_PENDING) {
      this.#dropped += 1;
      return;
    }
    const { kind, token, peer, method, reason, jobId, subject, rule, promptSha256 } = entry;
    this.#pending.push(
      JSON.stringify({
        time: new Date().toISOString(),
        kind,
        token,
        peer,
        method,
        reason,
        job_id: jobId,
        subject,
        rule,
        prompt_sha256: promptSha256,
        count,
      }),
    );
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  async #write(): Promise<void> {
    while (this.#pending.length > 0) {
      const lines = this.#pending.slice();
      try {
        const file = await this.#current();
        await file.appendFile(`${lines.join('\n')}\n`);
        await file.datasync();
        this.#pending.splice(0, lines.length);
        if (this.#dropped > 0) this.#pending.push(this.#droppedLine());
      } catch (error) {
        this.#options.log.error({ err: error, waiting: this.#pending.length }, 'audit file takes no entries');
        if (this.#isClosed) return;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS).unref());
      }
    }
  }

  #droppedLine(): string {
    const line = JSON.stringify({ time: new Date().toISOString(), kind: 'lost', count: this.#dropped });
    this.#dropped = 0;
    return line;
  }

  /** The file to write to: another one once it is full, or was renamed by somebody else. */
  async #current(): Promise<FileHandle> {
    const [open_, named] = await Promise.all([this.#file?.stat(), stat(this.#path).catch(() => undefined)]);
    if (this.#file !== undefined && open_?.ino === named?.ino && (open_?.size ?? 0) < this.#options.maxBytes) {
      return this.#file;
    }
    await this.#file?.close();
    this.#file = undefined;
    if (named !== undefined && named.size >= this.#options.maxBytes) {
      await rename(this.#path, `${this.#path}.${new Date().toISOString().replaceAll(':', '-')}`);
    }
    this.#file = await open(this.#path, 'a', 0o600);
    return this.#file;
  }
}
