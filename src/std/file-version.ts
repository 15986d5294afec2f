import { stat } from 'node:fs/promises';

/** Another one when the file was written, replaced or removed; the same when only its links, mode or owner changed. Follows links. */
export async function fileVersion(path: string): Promise<string> {
  try {
    const { ino, size, mtimeNs } = await stat(path, { bigint: true });
    return `${ino} ${size} ${mtimeNs}`;
  } catch {
    return 'missing';
  }
}
