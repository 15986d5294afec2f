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
  /** Ends the pause after a failed write. */
  #retry: (() => void) | undefined;
  #file: FileHandle | undefined;
  /** Bytes of the first waiting line that are in the file already: a full disk takes a part. */
  #written = 0;
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
    this.#retry?.();
    await this.#writing;
    const lost = this.#pending.length + this.#dropped;
    if (lost > 0) this.#options.log.error({ lost }, 'audit entries were lost: the file takes none');
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
    this.#writing ??= this.#write();
  }

  /** Writes until nothing waits. It always ends with `#writing` unset, in the same turn in which it finds nothing. */
  async #write(): Promise<void> {
    while (this.#pending.length > 0) {
      try {
        await this.#writeLines(this.#pending.slice());
        if (this.#dropped > 0) this.#pending.push(this.#droppedLine());
      } catch (error) {
        this.#options.log.error({ err: error, waiting: this.#pending.length }, 'audit file takes no entries');
        if (this.#isClosed) break;
        await this.#pause();
      }
    }
    this.#writing = undefined;
  }

  /** Takes the lines that the file has from those that wait, also where it fails in their middle. */
  async #writeLines(lines: readonly string[]): Promise<void> {
    const file = await this.#current();
    const bytes = Buffer.from(`${lines.join('\n')}\n`);
    let written = this.#written;
    try {
      while (written < bytes.length) written += (await file.write(bytes, written)).bytesWritten;
    } finally {
      const [wholeLines, bytesOfThem] = wholeLinesOf(bytes.subarray(0, written));
      this.#pending.splice(0, wholeLines);
      this.#written = written - bytesOfThem;
    }
    // A pipe has nothing to sync.
    await file.datasync().catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EINVAL') throw error;
    });
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, RETRY_MS).unref();
      this.#retry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
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
    // The rest of a line belongs into the file that has its beginning.
    if (this.#file !== undefined && this.#written > 0 && open_?.nlink !== 0) return this.#file;
    this.#written = 0;
    await this.#file?.close();
    this.#file = undefined;
    if (named !== undefined && named.size >= this.#options.maxBytes) await this.#setAside();
    this.#file = await open(this.#path, 'a', 0o600);
    return this.#file;
  }

  /** Gives a full file another name. One that another file has is never taken: two files may be full within a millisecond. */
  async #setAside(): Promise<void> {
    const name = `${this.#path}.${new Date().toISOString().replaceAll(':', '-')}`;
    let free = name;
    for (let i = 1; (await stat(free).catch(() => undefined)) !== undefined; i += 1) free = `${name}.${i}`;
    await rename(this.#path, free);
  }
}

const NEWLINE = 10;

/** Number of whole lines, and their bytes. */
function wholeLinesOf(bytes: Buffer): readonly [lines: number, bytes: number] {
  let lines = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) lines += 1;
  return [lines, bytes.lastIndexOf(NEWLINE) + 1];
}
