import type { BigIntStats } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** A folder with more files is a wrong path rather than a collection. */
const MAX_FILES = 10_000;
const MAX_ENTRIES = 100_000;
const MAX_DEPTH = 16;

/** Path of each file of a folder by its name: its path below the folder without the ending. */
export type AddOnPaths = ReadonlyMap<string, string>;

/**
 * Lists the files below a folder that have one of the endings, in capitals too. Links to files and folders are followed, each folder
 * once. Subfolders that cannot be read are left out. Of two files of one name the one with the earlier ending counts.
 * @param endings in lower case
 */
export async function listAddOnFolder(folder: string, endings: readonly string[]): Promise<AddOnPaths> {
  const files: { readonly name: string; readonly path: string; readonly order: number }[] = [];
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
      const order = isFolder ? -1 : endings.findIndex((ending) => entry.name.toLowerCase().endsWith(ending));
      const ending = endings[order];
      if (ending !== undefined) files.push({ name: prefix + entry.name.slice(0, -ending.length), path: at, order });
    }
  };
  await walk(folder, '', 0);
  // The last of one name stays.
  files.sort((a, b) => (a.name === b.name ? b.order - a.order : a.name < b.name ? -1 : 1));
  return new Map(files.map(({ name, path }) => [name, path]));
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
