import { stat } from 'node:fs/promises';

/** Time between two looks at the files, in ms. */
const INTERVAL_MS = 1000;

/**
 * Calls back when one of the files was written, replaced or removed. It polls: what replaces a file by a rename, or the folder
 * of a Kubernetes secret by a symlink, sends no event that Node reports everywhere.
 * @returns stops the watch
 */
export function watchFiles(paths: readonly string[], onChange: () => void, intervalMs = INTERVAL_MS): () => void {
  let before: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;
  const look = async () => {
    const now = (await Promise.all(paths.map(versionOf))).join('\n');
    if (isStopped) return;
    if (before !== undefined && now !== before) onChange();
    before = now;
    timer = setTimeout(() => void look(), intervalMs).unref();
  };
  void look();
  return () => {
    isStopped = true;
    clearTimeout(timer);
  };
}

async function versionOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeMs, ctimeMs } = await stat(path);
    return [dev, ino, size, mtimeMs, ctimeMs].join(' ');
  } catch {
    return 'missing';
  }
}
