import { randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { makeFolder } from '../std/make-folder.js';
import type { AssetStore, StoredObject } from './asset-store.js';
import { objectPath } from './object-path.js';
import { storageError } from './storage-error.js';

/** Folder beside the buckets for files that are not complete yet. */
const PARTS = '.parts';
/** No live writer takes this long, so older part files are leftovers. */
const MAX_PART_AGE_MS = 24 * 3_600_000;

export interface LocalStoreOptions {
  readonly folder: string;
  /** Start of the URLs, before the path. Omitted: `file://` URLs. */
  readonly baseUrl?: string | undefined;
}

/** Files under `folder/bucket/key`. */
export class LocalStore implements AssetStore {
  readonly kind = 'local';
  readonly #folder: string;
  readonly #baseUrl: string | undefined;
  #swept: Promise<void> | undefined;

  constructor({ folder, baseUrl }: LocalStoreOptions) {
    this.#folder = resolve(folder);
    this.#baseUrl = baseUrl?.replace(/\/+$/, '');
  }

  async put({ bucket, key, path }: StoredObject, signal: AbortSignal): Promise<string> {
    const target = join(this.#folder, bucket, key);
    const part = join(this.#folder, PARTS, randomUUID());
    try {
      await Promise.all([dirname(target), dirname(part)].map((folder) => makeFolder(folder)));
      this.#swept ??= sweep(dirname(part));
      await this.#swept;
      await pipeline(createReadStream(path), createWriteStream(part), { signal });
      await synced(part);
      await rename(part, target);
    } catch (error) {
      await rm(part, { force: true });
      throw storageError(`${target} could not be written`, error);
    }
    return this.#baseUrl === undefined ? pathToFileURL(target).href : `${this.#baseUrl}/${objectPath(bucket, key)}`;
  }
}

/** Removes the part files of killed processes. */
async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const entry = await stat(path).catch(() => undefined);
    if (entry !== undefined && Date.now() - entry.mtimeMs > MAX_PART_AGE_MS) await rm(path, { force: true });
  }
}

/** Writes a file to the disk: after a power failure there must be no name without its bytes. */
async function synced(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
