import { open, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { InferenceError } from '../errors.js';
import { formatBytes } from './format-bytes.js';
import { makeFolder } from './make-folder.js';
import { writeOnce } from './part-file.js';

export interface WholeFile {
  /** Bytes that the whole file will have. */
  readonly bytes: number;
  /** End of a sentence: what to do where the disk has no room. */
  readonly remedy: string;
  readonly signal?: AbortSignal | undefined;
  /** Default: a minute. */
  readonly staleMs?: number | undefined;
  /** Reports the size of another writer's file while this call waits for it. */
  readonly onBytes?: (done: number) => void;
  readonly isWhole: () => Promise<boolean>;
  /** Fills a new empty file, which is then put on the disk. */
  readonly write: (handle: Awaited<ReturnType<typeof open>>) => Promise<void>;
  /** Called with the file on the disk, before it gets its name. @throws to leave no file */
  readonly check?: () => Promise<void>;
}

/**
 * Writes a file that can be made again: under another name, put on the disk, then renamed; once, however many processes want it. Its
 * folder is made, and its room is checked before the first byte.
 *
 * @returns true if this call wrote the file
 * @throws InferenceError CANCELLED, OUT_OF_MEMORY for a full disk, CHECKPOINT_INVALID for a folder that cannot be written; what `write`
 * and `check` throw
 */
export async function writeWhole(path: string, file: WholeFile): Promise<boolean> {
  const { bytes, remedy, signal, staleMs, onBytes, isWhole, write, check } = file;
  const diskFull = (left: string, cause?: unknown) =>
    new InferenceError(
      'OUT_OF_MEMORY',
      `${dirname(path)} has no room for ${formatBytes(bytes, 2)} (${left}); ${remedy}`,
      { cause },
    );
  try {
    await makeFolder(dirname(path)).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'ENOENT' ? unwritable(path, error) : error;
    });
    return await writeOnce(path, {
      signal,
      ...(staleMs !== undefined && { staleMs }),
      ...(onBytes && { onBytes }),
      isWhole,
      write: async (part) => {
        const { bavail, bsize } = await statfs(dirname(path));
        if (bavail * bsize < bytes) throw diskFull(`${formatBytes(bavail * bsize, 2)} free`);
        const handle = await open(part, 'r+');
        try {
          await write(handle);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await check?.();
      },
    });
  } catch (error) {
    if (error instanceof InferenceError) throw error;
    if (signal?.aborted) throw new InferenceError('CANCELLED', 'the conversion was cancelled', { cause: error });
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code)) throw diskFull(code, error);
    if (['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST', 'EISDIR'].includes(code)) throw unwritable(path, error);
    throw error;
  }
}

function unwritable(path: string, error: unknown): InferenceError {
  const { code, message } = error as NodeJS.ErrnoException;
  return new InferenceError(
    'CHECKPOINT_INVALID',
    `${path} cannot be written (${code ?? message}); name another folder`,
    {
      cause: error,
    },
  );
}
