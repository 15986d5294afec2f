import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve, sep } from 'node:path';
import { promisify } from 'node:util';

const FIX = 'apt-get install ffmpeg, or set FFMPEG_PATH';

export type FfmpegFinding =
  | { readonly found: true; readonly path: string; readonly version: string }
  | { readonly found: false; readonly detail: string; readonly fix: string };

/** Finds ffmpeg: the given path, the binary of the optional package if it was downloaded, or the one on the PATH. */
export async function findFfmpeg(given: string | undefined): Promise<FfmpegFinding> {
  // It is run in other folders, too.
  const path = given?.includes(sep) ? resolve(given) : (given ?? packagedFfmpeg() ?? 'ffmpeg');
  try {
    const { stdout } = await promisify(execFile)(path, ['-version'], { timeout: 10_000 });
    return { found: true, path, version: /^ffmpeg version (\S+)/.exec(stdout)?.[1] ?? 'unknown' };
  } catch {
    return { found: false, detail: `${path} does not run`, fix: FIX };
  }
}

// With install scripts off, the package is there without its binary.
function packagedFfmpeg(): string | undefined {
  try {
    const path: unknown = createRequire(import.meta.url)('ffmpeg-static');
    return typeof path === 'string' && existsSync(path) ? path : undefined;
  } catch {
    return undefined;
  }
}
