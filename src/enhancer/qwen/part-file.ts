import { randomUUID } from 'node:crypto';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A conversion writes all the time; one that has not for so long was interrupted. */
const STALE_MS = 60_000;
const POLL_MS = 250;

export interface PartOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes that another writer of the same file has got to, while it is waited for. */
  readonly onBytes?: (done: number) => void;
  /** Tells whether the file is there and whole: another writer may have made it. */
  readonly isWhole: () => Promise<boolean>;
  /** Writes the file under another name. */
  readonly write: (part: string) => Promise<void>;
  /** Given so that a test need not wait. */
  readonly staleMs?: number;
}

/**
 * Makes a file that is there whole or not at all, once, however many ask for it, in this process or others: each writer has a
 * `.part` of its own, the others wait while it grows, and parts that do not are deleted. Should two write after all, both write
 * the same and the later rename wins.
 *
 * @returns whether this call wrote it
 * @throws what `write` throws, with nothing left behind
 */
export async function writeOnce(path: string, options: PartOptions): Promise<boolean> {
  const { signal, isWhole, write } = options;
  for (;;) {
    signal?.throwIfAborted();
    if (await isWhole()) return false;
    if (await waitForOthers(path, undefined, options)) continue;
    const part = `${path}.${randomUUID()}.part`;
    try {
      // Of those that begin at once, the one that sorts first goes on.
      await touch(part);
      if (await waitForOthers(path, part, options)) continue;
      await write(part);
      if (await renamed(part, path)) return true;
    } finally {
      await rm(part, { force: true });
    }
  }
}

/** False where another writer took this part for an interrupted one: a slow disk can stand still while it is flushed. */
async function renamed(part: string, path: string): Promise<boolean> {
  try {
    await rename(part, path);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
}

async function touch(part: string): Promise<void> {
  await (await open(part, 'wx')).close();
}

/** Waits for the first other part, if it grows; true when it is gone, false when there is none to wait for. */
async function waitForOthers(path: string, own: string | undefined, options: PartOptions): Promise<boolean> {
  const { signal, onBytes, staleMs = STALE_MS } = options;
  let waited = false;
  for (const other of await partsOf(path)) {
    if (own !== undefined && other >= own) break;
    let seen: number | undefined;
    // A part whose clock says it was left long ago is not watched first.
    let unchangedMs = Math.max(0, Date.now() - ((await stat(other).catch(() => undefined))?.mtimeMs ?? 0));
    for (;;) {
      const entry = await stat(other).catch(() => undefined);
      if (entry === undefined) {
        waited = true;
        break;
      }
      if (seen !== undefined && entry.size !== seen) unchangedMs = 0;
      if (unchangedMs >= staleMs) {
        await rm(other, { force: true });
        break;
      }
      seen = entry.size;
      onBytes?.(seen);
      await sleep(POLL_MS, undefined, { signal });
      unchangedMs += POLL_MS;
    }
  }
  return waited;
}

async function partsOf(path: string): Promise<readonly string[]> {
  const prefix = `${basename(path)}.`;
  const names = await readdir(dirname(path));
  return names
    .filter((name) => name.startsWith(prefix) && name.endsWith('.part'))
    .sort()
    .map((name) => join(dirname(path), name));
}
