import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { InferenceError } from '../errors.js';
import { readGgufHeader } from '../weights/gguf/gguf-header.js';
import { isGguf } from '../weights/gguf/gguf-types.js';
import { readSafetensors } from '../weights/safetensors.js';

/** The facts that identify the family of a checkpoint: little enough to read for every family at once. */
export interface CheckpointGlance {
  readonly isFolder: boolean;
  /** Text of `model_index.json` of a diffusers-layout folder. */
  readonly index: string | undefined;
  /** Names of what is in a folder. */
  readonly entries: readonly string[];
  /** Names of the tensors of a single `.safetensors` or `.gguf` file. */
  readonly keys: readonly string[];
}

/** @throws InferenceError CHECKPOINT_INVALID for a path that does not exist or a file that cannot be read */
export async function glanceAt(path: string): Promise<CheckpointGlance> {
  const entry = await stat(path).catch(() => undefined);
  if (entry === undefined) throw new InferenceError('CHECKPOINT_INVALID', `${path} does not exist`);
  const isFolder = entry.isDirectory();
  if (isFolder) {
    const index = await readFile(join(path, 'model_index.json'), 'utf8').catch(() => undefined);
    return { isFolder, index, entries: await readdir(path).catch(() => []), keys: [] };
  }
  const read = isGguf(path) ? readGgufHeader : path.endsWith('.safetensors') ? readSafetensors : undefined;
  const keys = read === undefined ? [] : [...(await read(path)).tensors.keys()];
  return { isFolder, index: undefined, entries: [], keys };
}
