import { randomUUID } from 'node:crypto';
import { rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InferenceError } from '../../errors.js';
import { makeFolder } from '../../std/make-folder.js';

/** What the codes of system errors mean for somebody who chose a path. */
const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'there is no permission',
  EPERM: 'there is no permission',
  EROFS: 'the file system is read-only',
  EEXIST: 'a file has this name',
  ENOTDIR: 'a part of the path is a file',
  EISDIR: 'a folder has this name',
  ENOENT: 'the folder cannot be made',
  ENAMETOOLONG: 'a name in the path is too long',
  ELOOP: 'its links are a circle',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
};

/**
 * Makes a folder for results and writes a file to it for a moment, so that a path that cannot be written fails before the work begins.
 * @param name of the option or the folder in messages, such as `--out`
 * @throws InferenceError INVALID_REQUEST
 */
export async function prepareFolder(name: string, folder: string, remedy = 'name another folder'): Promise<void> {
  try {
    await makeFolder(folder);
    const probe = join(folder, `.darkroom-${randomUUID()}`);
    await writeFile(probe, '', { flag: 'wx' });
    await rm(probe, { force: true });
  } catch (error) {
    throw unwritable(name, folder, error, remedy);
  }
}

/** Does the same for the folder of a file. @throws InferenceError INVALID_REQUEST, also for a file that has the name of a folder */
export async function prepareFile(name: string, file: string): Promise<void> {
  const entry = await stat(file).catch(() => undefined);
  const isDirectory = entry?.isDirectory() ?? false;
  if (isDirectory)
    throw unwritable(name, file, Object.assign(new Error('is a folder'), { code: 'EISDIR' }), OTHER_FILE);
  await prepareFolder(name, dirname(file), OTHER_FILE);
}

const OTHER_FILE = 'name another file';

/** An error of writing to a path that the caller chose. Errors that the system did not send stay as they are. */
export function unwritable(name: string, path: string, error: unknown, remedy: string): unknown {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const reason = REASONS[code];
  if (reason === undefined) return error;
  return new InferenceError('INVALID_REQUEST', `${name} "${path}" cannot be written: ${reason} (${code}); ${remedy}`, {
    cause: error,
  });
}
