import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Removes what killed processes left in a folder: entries called `<prefix><process id>-…`.
 * @param minAgeMs younger entries stay, for folders shared by processes that do not see each other. Omitted: 0
 */
export async function removeStaleFolders(parent: string, prefix: string, minAgeMs = 0): Promise<void> {
  for (const name of await readdir(parent)) {
    const owner = name.startsWith(prefix) ? /^(\d+)-/.exec(name.slice(prefix.length))?.[1] : undefined;
    if (owner === undefined || isAlive(Number(owner))) continue;
    const path = join(parent, name);
    const entry = await stat(path).catch(() => undefined);
    if (entry === undefined || Date.now() - entry.mtimeMs < minAgeMs) continue;
    await rm(path, { recursive: true, force: true });
  }
}

/** True if this machine, or this container, has a process of this id. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: the process exists, but belongs to another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
