import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Takes away what processes that were killed left in a folder: entries that are called `<prefix><process id>-…`.
 * @param minAgeMs younger ones stay, where processes may share the folder that do not see each other; omitted: none do
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

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // A process of another user is one too.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
