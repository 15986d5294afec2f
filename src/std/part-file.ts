import { randomUUID } from 'node:crypto';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Time in ms without growth after which a part file counts as interrupted. */
const STALE_MS = 60_000;
const POLL_MS = 250;

export interface PartOptions {
  readonly signal?: AbortSignal | undefined;
  /** Reports the size of another writer's file while this call waits for it. */
  readonly onBytes?: (done: number) => void;
  /** Returns true if the file exists and is complete: another writer may have finished it. */
  readonly isWhole: () => Promise<boolean>;
  /** Writes the file under another name. */
  readonly write: (part: string) => Promise<void>;
  /** Shorter in tests. */
  readonly staleMs?: number;
}

/**
 * Writes a file that is complete or absent, and only once, however many callers in any process want it. Each writer has
 * its own `.part` file. The others wait while it grows; parts that do not grow are deleted. If two writers finish after
 * all, both wrote the same bytes and the later rename wins.
 *
 * @returns true if this call wrote the file
 * @throws the error of `write`; no file is left behind
 */
export async function writeOnce(path: string, options: PartOptions): Promise<boolean> {
  const { signal, isWhole, write } = options;
  for (;;) {
    signal?.throwIfAborted();
    if (await isWhole()) return false;
    if (await waitForOthers(path, undefined, options)) continue;
    const part = `${path}.${randomUUID()}.part`;
    try {
      // Of writers that start at once, the one whose name sorts first continues.
      await touch(part);
      if (await waitForOthers(path, part, options)) continue;
      await write(part);
      if (await renamed(part, path)) return true;
    } finally {
      await rm(part, { force: true });
    }
  }
}

/** False if another writer deleted this part as interrupted: a slow disk can pause while it flushes. */
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

/** Waits for the first other part while it grows. True when it is gone, false if there is none. */
async function waitForOthers(path: string, own: string | undefined, options: PartOptions): Promise<boolean> {
  const { signal, onBytes, staleMs = STALE_MS } = options;
  let waited = false;
  for (const other of await partsOf(path)) {
    if (own !== undefined && other >= own) break;
    let seen: number | undefined;
    // A part with an old modification time is deleted without watching it first.
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
