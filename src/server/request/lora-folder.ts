import type { BigIntStats } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

const SUFFIX = '.safetensors';
/** A folder with more files is a wrong path rather than a collection. */
const MAX_FILES = 10_000;
const MAX_ENTRIES = 100_000;
const MAX_DEPTH = 16;

/** Path of each LoRA file of a folder by its name: its path below the folder without the ending. */
export type LoraPaths = ReadonlyMap<string, string>;

/**
 * Lists the `.safetensors` files below a folder, in capitals too. Links to files and folders are followed, each folder once.
 * Subfolders that cannot be read are left out.
 */
export async function listLoraFolder(folder: string): Promise<LoraPaths> {
  const files: [name: string, path: string][] = [];
  const seen = new Set<string>();
  let entries = 0;
  const walk = async (path: string, prefix: string, depth: number): Promise<void> => {
    const own = await entryOf(path);
    const id = `${own?.dev} ${own?.ino}`;
    if (own === undefined || seen.has(id) || depth > MAX_DEPTH) return;
    seen.add(id);
    for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
      entries += 1;
      if (files.length >= MAX_FILES || entries > MAX_ENTRIES) return;
      const at = join(path, entry.name);
      const isFolder = entry.isDirectory() || (entry.isSymbolicLink() && (await entryOf(at))?.isDirectory() === true);
      if (isFolder) await walk(at, `${prefix}${entry.name}/`, depth + 1);
      else if (entry.name.toLowerCase().endsWith(SUFFIX))
        files.push([prefix + entry.name.slice(0, -SUFFIX.length), at]);
    }
  };
  await walk(folder, '', 0);
  return new Map(files.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The reason why a folder cannot be listed; undefined where it can. */
export function folderProblem(folder: string): Promise<string | undefined> {
  return readdir(folder).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => `${folder} cannot be read (${error.code ?? error.message})`,
  );
}

/** Undefined for what does not exist. A pipe is not opened. */
export function entryOf(path: string): Promise<BigIntStats | undefined> {
  return stat(path, { bigint: true }).catch(() => undefined);
}
