import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { AssetChunk } from '../gen/darkroom/v1/event.js';
import type { Asset } from '../gen/darkroom/v1/job.js';
import { makeFolder } from '../std/make-folder.js';

const EXTENSIONS: Readonly<Record<string, string>> = {
  'image/png': 'png',
  'image/webp': 'webp',
  'image/jpeg': 'jpg',
  'video/mp4': 'mp4',
};

/** The extension of a file name, without the dot; "bin" for a content type that darkroom does not make. */
export function extensionOf(contentType: string): string {
  return EXTENSIONS[contentType] ?? 'bin';
}

export interface SavedAsset {
  readonly path: string;
  readonly asset: Asset;
}

interface PartFile {
  readonly handle: FileHandle;
  readonly path: string;
  readonly hash: Hash;
}

/** Writes a job's chunks as they arrive. A file gets its name when it is complete and its SHA-256 is right. */
export class AssetSaver {
  readonly #folder: string;
  readonly #name: string;
  #part: PartFile | undefined;

  /** Files are `folder/name-<index>.<ext>`. */
  constructor(folder: string, name: string) {
    this.#folder = folder;
    this.#name = name;
  }

  /** Adds a chunk. @returns the file that it completed; undefined if more chunks follow */
  async add({ index, data, asset }: AssetChunk): Promise<SavedAsset | undefined> {
    this.#part ??= await this.#open(index);
    const { handle, path: partPath, hash } = this.#part;
    hash.update(data);
    await handle.writeFile(data);
    if (asset === undefined) return undefined;
    await this.close();
    if (!hash.digest().equals(asset.sha256)) {
      throw new Error(`asset ${asset.index} arrived damaged: its SHA-256 differs`);
    }
    const path = join(this.#folder, `${this.#name}-${asset.index}.${extensionOf(asset.contentType)}`);
    await rename(partPath, path);
    return { path, asset };
  }

  /** Closes an incomplete file and leaves it as it is. */
  async close(): Promise<void> {
    const part = this.#part;
    this.#part = undefined;
    await part?.handle.close();
  }

  async #open(index: number): Promise<PartFile> {
    await makeFolder(this.#folder);
    const path = join(this.#folder, `${this.#name}-${index}.part`);
    return { handle: await open(path, 'w'), path, hash: createHash('sha256') };
  }
}
