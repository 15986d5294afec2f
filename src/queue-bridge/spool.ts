import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

const NAME = /^darkroom-spool-(\d+)-/;
/** Younger ones may belong to a bridge whose processes are not seen from here. */
const MIN_AGE_MS = 3_600_000;

/** A folder of this process for files on their way; those that killed bridges left are taken away. */
export async function openSpool(parent: string): Promise<string> {
  for (const name of await readdir(parent)) {
    const pid = NAME.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) await sweep(join(parent, name));
  }
  return mkdtemp(join(parent, `darkroom-spool-${process.pid}-`));
}

async function sweep(folder: string): Promise<void> {
  try {
    if (Date.now() - (await stat(folder)).mtimeMs > MIN_AGE_MS) await rm(folder, { recursive: true });
  } catch {
    // Somebody else's, or swept by another bridge meanwhile.
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
