import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { removeStaleFolders } from '../std/stale-folders.js';

const PREFIX = 'darkroom-spool-';
/** Bridges in containers may share a volume without seeing each other's processes. */
const MIN_AGE_MS = 3_600_000;

/** Creates a folder of this process for files that are not stored yet, and removes the folders of killed bridges. */
export async function openSpool(parent: string): Promise<string> {
  await removeStaleFolders(parent, PREFIX, MIN_AGE_MS);
  return mkdtemp(join(parent, `${PREFIX}${process.pid}-`));
}
