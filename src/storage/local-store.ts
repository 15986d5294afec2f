import { randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import type { AssetStore, StoredObject } from './asset-store.js';
import { objectPath } from './object-path.js';
import { storageFailed } from './storage-failed.js';

export interface LocalStoreOptions {
  readonly folder: string;
  /** What stands before the path in URLs; omitted: `file://` URLs. */
  readonly baseUrl?: string | undefined;
}

/** Files under `folder/bucket/key`. */
export class LocalStore implements AssetStore {
  readonly kind = 'local';
  readonly #folder: string;
  readonly #baseUrl: string | undefined;

  constructor({ folder, baseUrl }: LocalStoreOptions) {
    this.#folder = resolve(folder);
    this.#baseUrl = baseUrl?.replace(/\/+$/, '');
  }

  async put({ bucket, key, path }: StoredObject, signal: AbortSignal): Promise<string> {
    const target = join(this.#folder, bucket, key);
    const part = `${target}.${randomUUID()}.part`;
    try {
      await mkdir(dirname(target), { recursive: true });
      await pipeline(createReadStream(path), createWriteStream(part), { signal });
      await synced(part);
      await rename(part, target);
    } catch (error) {
      await rm(part, { force: true });
      throw storageFailed(`${target} could not be written`, error);
    }
    return this.#baseUrl === undefined ? pathToFileURL(target).href : `${this.#baseUrl}/${objectPath(bucket, key)}`;
  }
}

/** A name must not outlive its bytes when the machine stops. */
async function synced(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
