import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { removeStaleFolders } from '../std/stale-folders.js';

const PREFIX = 'darkroom-spool-';
/** Bridges in containers may share a volume, and not see each other. */
const MIN_AGE_MS = 3_600_000;

/** A folder of this process for files on their way; those that killed bridges left are taken away. */
export async function openSpool(parent: string): Promise<string> {
  await removeStaleFolders(parent, PREFIX, MIN_AGE_MS);
  return mkdtemp(join(parent, `${PREFIX}${process.pid}-`));
}
