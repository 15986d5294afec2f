import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Finds a folder under `assets` of the package: it is above this file, in the build one level higher. */
export async function findAsset(name: string): Promise<string> {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (folder !== dirname(folder)) {
    const asset = join(folder, 'assets', name);
    if (await stat(asset).catch(() => undefined)) return asset;
    folder = dirname(folder);
  }
  throw new Error(`assets/${name} is missing from this installation`);
}
