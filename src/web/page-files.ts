import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { InferenceError } from '../errors.js';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

export interface PageFile {
  readonly contentType: string;
  readonly data: Buffer;
  /** Names of built files have a hash of their content, so browsers may keep them. */
  readonly isImmutable: boolean;
}

/**
 * Reads the built page into memory: a few files, by their path on the server.
 * @throws InferenceError INVALID_REQUEST if the page was not built
 */
export function readPage(folder: string): ReadonlyMap<string, PageFile> {
  try {
    const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const page = new Map<string, PageFile>();
    for (const { parentPath, name } of files) {
      const path = join(parentPath, name);
      const contentType = TYPES[extname(name)];
      if (contentType === undefined) continue;
      const url = path.slice(folder.length).replaceAll('\\', '/').replace(/^\/*/, '/');
      page.set(url, { contentType, data: readFileSync(path), isImmutable: url.startsWith('/assets/') });
    }
    const index = page.get('/index.html');
    if (index === undefined) throw new Error('it has no index.html');
    return page.set('/', index);
  } catch (error) {
    throw new InferenceError(
      'INVALID_REQUEST',
      `the page in ${folder} cannot be read: ${(error as Error).message}; run npm run build`,
    );
  }
}
