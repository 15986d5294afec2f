import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

/**
 * Opens a regular file to read it. A pipe, a socket or a device is refused without waiting for it.
 * @param refuse throws an error with the problem that it is given: the rest of a sentence that begins with the file's path
 */
export async function openFile(path: string, refuse: (problem: string) => never): Promise<FileHandle> {
  const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)).catch((error: unknown) =>
    refuse(`cannot be opened: ${String(error)}`),
  );
  const isFile = await handle.stat().then(
    (entry) => entry.isFile(),
    () => false,
  );
  if (isFile) return handle;
  await handle.close();
  return refuse('is not a file');
}
