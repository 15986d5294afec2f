import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { StoredObject } from '../../src/storage/asset-store.js';
import { tempFolder } from './temp-folder.js';

/** A file of the running test, ready to be stored. */
export async function fileToStore(bytes: Uint8Array, key = 'ann/job-1/0.png'): Promise<StoredObject> {
  const path = join(await tempFolder(), 'file');
  await writeFile(path, bytes);
  return {
    bucket: 'sdxl_image_fast',
    key,
    path,
    contentType: 'image/png',
    sizeBytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest(),
  };
}
