import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { readJsonFile } from '../std/json-file.js';
import { isGguf } from './gguf/gguf-types.js';
import { readSafetensors, storedTypeOf, type TensorRecord } from './safetensors.js';

/** An index of tensors is JSON text: 2,500 names take 300 KB. */
const INDEX = { maxBytes: 100_000_000, missing: 'it names the shards' };
const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });
/** The largest published checkpoints come in under 200 shards. */
const MAX_SHARDS = 1_000;

/** A tensor as a graph takes it: often a file's own, sometimes a part of one, or one to be read the other way round. */
export interface WeightRecord extends TensorRecord {
  /** `shape` is the transpose of what is stored. */
  readonly isTransposed?: boolean;
  /** Type in the user's file, where that is not the one that `dtype` names. */
  readonly storedAs?: string;
}

/** The tensors of one network, over one file or several shards. */
export interface WeightFiles {
  /** Path in messages: the file or the index that the user knows. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, WeightRecord>;
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Writes the file that tensors were converted to, where it is not there yet. Omitted: every tensor lies where it was found.
   * @throws InferenceError of the source, or of the disk
   */
  prepare?(): Promise<void>;
}

/** The tensors below a prefix, under what is left of their names. */
export function below(tensors: WeightFiles['tensors'], prefix: string): WeightFiles['tensors'] {
  return new Map(
    [...tensors].filter(([key]) => key.startsWith(prefix)).map(([key, record]) => [key.slice(prefix.length), record]),
  );
}

/** The same tensors under other names. */
export function renamed(tensors: WeightFiles['tensors'], rename: (key: string) => string): WeightFiles['tensors'] {
  return new Map([...tensors].map(([key, record]) => [rename(key), record]));
}

/** One, [C, …], of three tensors that are stored as one, [3C, …]. @param part 0, 1 or 2 */
export function third(record: TensorRecord, part: number): WeightRecord {
  const [rows = 0, ...rest] = record.shape;
  const length = record.length / 3;
  // A matrix whose rows do not divide keeps its shape, one of another type its type: no graph accepts either.
  if (rows % 3 !== 0 || storedTypeOf(record) === undefined) return record;
  const name = `${record.name}[${part}]`;
  return { ...record, name, shape: [rows / 3, ...rest], offset: record.offset + part * length, length };
}

/**
 * Finds the weights of one network in a diffusers or transformers folder: `<stem>.safetensors`, or shards listed in
 * `<stem>.safetensors.index.json`, or their `.fp16.` variant where that is all there is.
 *
 * @param stems file names without `.safetensors`, the first that exists is taken
 * @throws InferenceError CHECKPOINT_INVALID
 */
export async function readWeightFiles(folder: string, stems: readonly string[]): Promise<WeightFiles> {
  for (const stem of stems.flatMap((name) => [name, `${name}.fp16`])) {
    const single = join(folder, `${stem}.safetensors`);
    if (await exists(single)) {
      const { tensors, metadata } = await readSafetensors(single);
      return { path: single, tensors, metadata };
    }
    // Variants name their index `<stem>.safetensors.index.<variant>.json`.
    const [plain, variant] = stem.split('.');
    const index = join(folder, `${plain}.safetensors.index.${variant === undefined ? '' : `${variant}.`}json`);
    if (await exists(index)) return readShards(index);
  }
  const found = await readdir(folder).catch(() => []);
  const others = found.filter((name) => /\.(bin|ckpt|pt|pth|gguf)$/.test(name));
  throw new InferenceError(
    'CHECKPOINT_INVALID',
    `${folder} has no ${stems[0]}.safetensors and no index of shards${
      others.length > 0
        ? `, only ${others.slice(0, 8).join(', ')}; get the .safetensors variant of this checkpoint${
            others.some(isGguf) ? ', or name the .gguf file itself' : ''
          }`
        : '; name the folder of a whole checkpoint, or get its missing files'
    }`,
  );
}

async function readShards(index: string): Promise<WeightFiles> {
  const refuse = (problem: string): never => {
    throw new InferenceError('CHECKPOINT_INVALID', `${index} ${problem}`);
  };
  const { weight_map } = await readJsonFile(index, indexSchema, INDEX);
  const map = Object.entries(weight_map);
  const shards = [...new Set(map.map(([, shard]) => shard))].sort();
  if (shards.length === 0) refuse('names no tensors');
  if (shards.length > MAX_SHARDS) refuse(`names ${shards.length} shards, the limit is ${MAX_SHARDS}`);
  const outside = shards.find((shard) => basename(shard) !== shard || shard === '..');
  if (outside !== undefined) refuse(`names the shard "${outside}", which is not a file beside it`);
  const missing: string[] = [];
  const tensors = new Map<string, TensorRecord>();
  const metadata: Record<string, string> = {};
  for (const shard of shards) {
    const path = join(dirname(index), shard);
    if (!(await exists(path))) {
      missing.push(shard);
      continue;
    }
    const file = await readSafetensors(path);
    Object.assign(metadata, file.metadata);
    for (const [name, tensor] of file.tensors) {
      if (tensors.has(name)) refuse(`has tensor "${name}" in two shards; the second is ${shard}`);
      tensors.set(name, tensor);
    }
  }
  if (missing.length > 0) refuse(`names shards that are not there: ${missing.join(', ')}`);
  return { path: index, tensors, metadata };
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    (entry) => entry.isFile(),
    () => false,
  );
}
