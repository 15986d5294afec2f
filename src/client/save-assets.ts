import { createHash } from 'node:crypto';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AssetChunk } from '../gen/darkroom/v1/event.js';
import type { Asset } from '../gen/darkroom/v1/job.js';

const EXTENSIONS: Readonly<Record<string, string>> = {
  'image/png': 'png',
  'image/webp': 'webp',
  'image/jpeg': 'jpg',
  'video/mp4': 'mp4',
};

export interface SavedAsset {
  readonly path: string;
  readonly asset: Asset;
}

/** Puts a job's chunks together and writes each file when it is whole and its SHA-256 is right. */
export class AssetSaver {
  readonly #folder: string;
  readonly #name: string;
  #chunks: Buffer[] = [];

  /** Files are `folder/name-<index>.<ext>`. */
  constructor(folder: string, name: string) {
    this.#folder = folder;
    this.#name = name;
  }

  /** The file that this chunk completed; undefined while there is more to come. */
  async add({ data, asset }: AssetChunk): Promise<SavedAsset | undefined> {
    this.#chunks.push(data);
    if (asset === undefined) return undefined;
    const file = Buffer.concat(this.#chunks);
    this.#chunks = [];
    if (!createHash('sha256').update(file).digest().equals(asset.sha256)) {
      throw new Error(`asset ${asset.index} arrived damaged: its SHA-256 differs`);
    }
    await mkdir(this.#folder, { recursive: true });
    const path = join(this.#folder, `${this.#name}-${asset.index}.${EXTENSIONS[asset.contentType] ?? 'bin'}`);
    await writeFile(`${path}.part`, file);
    await rename(`${path}.part`, path);
    return { path, asset };
  }
}
