import { createHash } from 'node:crypto';
import { open, readdir, readFile, rename, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { digestFile } from './file-digest.js';

/** The optimised graph, and its weights beside it. A graph whose constants are all small has no weights file. */
export const MODEL_FILE = 'model.onnx';
export const WEIGHTS_FILE = 'weights.bin';
const MANIFEST_FILE = 'entry.json';
const MAX_MANIFEST_BYTES = 64 * 2 ** 10;

const manifestSchema = z.object({
  key: z.string(),
  /** SHA-256 of the graph. */
  model: z.string(),
  /** `digestFile` of the weights. */
  weights: z.string().optional(),
});

export interface CacheEntry {
  readonly folder: string;
  readonly model: Uint8Array;
}

/**
 * Reads an entry and checks that it is whole, and marks it as used.
 * @param modelFile name of the file that is read. Omitted: the graph's
 * @returns undefined where there is none
 * @throws Error for one that is damaged, or that was not written for this key
 */
export async function readEntry(folder: string, key: string, modelFile = MODEL_FILE): Promise<CacheEntry | undefined> {
  const path = join(folder, MANIFEST_FILE);
  const entry = await stat(folder).catch(() => undefined);
  if (entry === undefined) return undefined;
  if ((await stat(path)).size > MAX_MANIFEST_BYTES) throw new Error(`${path} is too large`);
  const manifest = manifestSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  if (manifest.key !== key) throw new Error(`${path} was written for ${manifest.key}`);
  const model = await readFile(join(folder, modelFile));
  if (sha256(model) !== manifest.model) throw new Error(`its ${modelFile} is damaged`);
  if (manifest.weights !== undefined && (await digestFile(join(folder, WEIGHTS_FILE))) !== manifest.weights) {
    throw new Error('its weights are damaged');
  }
  // A cache that may only be read has no times of use.
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined);
  return { folder, model };
}

/** Completes a folder with a graph and its weights, and gives it its name. An entry of this name that is there stays. */
export async function finishEntry(folder: string, target: string, key: string, modelFile = MODEL_FILE): Promise<void> {
  const files = await readdir(folder);
  const weights = files.includes(WEIGHTS_FILE) ? { weights: await digestFile(join(folder, WEIGHTS_FILE)) } : {};
  const model = sha256(await readFile(join(folder, modelFile)));
  await writeFile(join(folder, MANIFEST_FILE), JSON.stringify({ key, model, ...weights }));
  // A machine that loses power after the rename must not have an entry without its bytes.
  for (const file of await readdir(folder)) await sync(join(folder, file));
  await rename(folder, target);
}

/** Time of the last use, in ms since 1970, and bytes on the disk. Undefined if the entry is gone. */
export async function measureEntry(folder: string): Promise<{ usedAtMs: number; bytes: number } | undefined> {
  try {
    const files = await readdir(folder);
    const stats = await Promise.all(files.map((file) => stat(join(folder, file))));
    const bytes = stats.reduce((sum, { size }) => sum + size, 0);
    return { usedAtMs: Math.max(0, ...stats.map(({ mtimeMs }) => mtimeMs)), bytes };
  } catch {
    return undefined;
  }
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
