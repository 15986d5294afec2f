import { randomUUID } from 'node:crypto';
import { access, constants, mkdir, readdir, readFile, rename, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { formatBytes } from '../../std/format-bytes.js';
import { makeFolder } from '../../std/make-folder.js';
import { isAlive } from '../../std/stale-folders.js';
import { measureEntry } from './cache-entry.js';

/** Entries that were used in this time are not evicted: models that do not fit together would evict each other at every start. */
const KEPT_MS = 3_600_000;
/** An entry in the making whose writer is not known to have ended counts as left behind after this time without a write. */
const STALE_MS = 3_600_000;
/** Bytes of the disk that the cache leaves free. */
const RESERVE_BYTES = 2 ** 30;

const ENTRY = /^[0-9a-f]{64}$/;
const PART = /^[0-9a-f]{64}\.part$/;
const REMOVED = /\.removed$/;
const OWNER_FILE = 'owner';

export interface CacheLimits {
  /** Real or relative path. It is made when the first entry is written. */
  readonly folder: string;
  /** Most bytes of all entries. */
  readonly maxBytes: number;
  /** Omitted: an hour. Shorter in tests. */
  readonly keptMs?: number;
}

/** Entries of a cache, each a folder, in one folder that engines of several servers may share. */
export class CacheFolder {
  readonly #limits: CacheLimits;

  constructor(limits: CacheLimits) {
    this.#limits = limits;
  }

  pathOf(key: string): string {
    return join(this.#limits.folder, key);
  }

  /** The reason why entries cannot be written here; undefined where they can. Nothing is made. */
  async problem(): Promise<string | undefined> {
    let folder = resolve(this.#limits.folder);
    // One that is not there yet is made in the first one above that is.
    while ((await stat(folder).catch(() => undefined)) === undefined && folder !== dirname(folder))
      folder = dirname(folder);
    if (!(await stat(folder)).isDirectory()) return `${folder} is no folder`;
    return access(folder, constants.W_OK | constants.X_OK).then(
      () => undefined,
      (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : String(error)),
    );
  }

  /** Number of entries, and their bytes. */
  async measure(): Promise<{ readonly entries: number; readonly bytes: number }> {
    const entries = await this.#entries();
    return { entries: entries.length, bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0) };
  }

  /**
   * Makes the folder that an entry is written in, for this process alone, and room for it.
   * @param entryBytes of the finished entry
   * @param diskBytes that writing it takes
   * @returns undefined with the reason where the entry is not to be written
   */
  async claim(
    key: string,
    { entryBytes, diskBytes }: { readonly entryBytes: number; readonly diskBytes: number },
  ): Promise<{ readonly part: string } | { readonly reason: string }> {
    const { folder, maxBytes } = this.#limits;
    if (entryBytes > maxBytes)
      return { reason: `it would take ${formatBytes(entryBytes, 3)}, the cache may have ${formatBytes(maxBytes, 3)}` };
    await makeFolder(folder, 0o700);
    await this.#removeLeftovers();
    if (!(await this.#evict(maxBytes - entryBytes)))
      return { reason: 'the entries that were used lately leave no room' };
    const { bavail, bsize } = await statfs(folder);
    if (bavail * bsize < diskBytes + RESERVE_BYTES)
      return { reason: `writing it takes ${formatBytes(diskBytes)}, the disk has ${formatBytes(bavail * bsize)} left` };
    const part = join(folder, `${key}.part`);
    try {
      await mkdir(part, { mode: 0o700 });
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EEXIST') {
        return { reason: 'another engine writes it' };
      }
      throw error;
    }
    await writeFile(join(part, OWNER_FILE), `${hostname()} ${process.pid}`);
    return { part };
  }

  /** Removes what `claim` wrote to a folder of its own. */
  async release(part: string): Promise<void> {
    await rm(join(part, OWNER_FILE), { force: true });
  }

  /** Removes an entry, or one in the making. An engine that has it mapped keeps its memory. */
  async remove(path: string): Promise<void> {
    // Under another name first: nobody reads half of it.
    const removed = `${path}.${randomUUID()}.removed`;
    try {
      await rename(path, removed);
    } catch {
      return;
    }
    await rm(removed, { recursive: true, force: true });
  }

  /** Removes the entries that were used the longest ago until the others have no more than so many bytes. False if they cannot. */
  async #evict(maxBytes: number): Promise<boolean> {
    const { keptMs = KEPT_MS } = this.#limits;
    const entries = [...(await this.#entries())].sort((a, b) => a.usedAtMs - b.usedAtMs);
    let bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
    const evicted: string[] = [];
    for (const entry of entries) {
      if (bytes <= maxBytes) break;
      if (Date.now() - entry.usedAtMs < keptMs) return false;
      evicted.push(entry.path);
      bytes -= entry.bytes;
    }
    for (const path of evicted) await this.remove(path);
    return true;
  }

  async #entries(): Promise<readonly { path: string; usedAtMs: number; bytes: number }[]> {
    const names = await readdir(this.#limits.folder).catch(() => []);
    const measured = names
      .filter((name) => ENTRY.test(name))
      .map(async (name) => {
        const path = this.pathOf(name);
        const entry = await measureEntry(path);
        return entry === undefined ? [] : [{ path, ...entry }];
      });
    return (await Promise.all(measured)).flat();
  }

  /** Removes what engines that ended left behind. */
  async #removeLeftovers(): Promise<void> {
    for (const name of await readdir(this.#limits.folder)) {
      const path = join(this.#limits.folder, name);
      if (REMOVED.test(name)) await rm(path, { recursive: true, force: true });
      else if (PART.test(name) && (await isLeftBehind(path))) await this.remove(path);
    }
  }
}

/** A process of this host that has ended leaves it behind at once, others when nothing was written for an hour. */
async function isLeftBehind(part: string): Promise<boolean> {
  const owner = await readFile(join(part, OWNER_FILE), 'utf8').catch(() => '');
  const [host, pid] = owner.split(' ');
  if (host === hostname() && !isAlive(Number(pid))) return true;
  const entries = await readdir(part, { recursive: true }).catch(() => []);
  const times = await Promise.all(['', ...entries].map((name) => stat(join(part, name)).catch(() => undefined)));
  const writtenAtMs = Math.max(0, ...times.map((entry) => entry?.mtimeMs ?? 0));
  return Date.now() - writtenAtMs > STALE_MS;
}
