import { createHash } from 'node:crypto';
import { readFile, realpath, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { cacheFolder } from '../../environment.js';
import { InferenceError } from '../../errors.js';
import { writeWhole } from '../../std/write-whole.js';
import { readGgufHeader } from '../../weights/gguf/gguf-header.js';
import type { WrittenType } from '../../weights/gguf/gguf-types.js';
import { type GgufFile, planGguf, writeGguf } from '../../weights/gguf/gguf-writer.js';
import { readWeightFiles, type WeightFiles } from '../../weights/weight-files.js';
import { readQwenConfig } from './config.js';
import type { GgufFileType } from './gguf-file-types.js';
import { qwenMetadata } from './metadata.js';
import { readVocabulary, vocabularyFiles } from './vocabulary.js';
import { ggufTensors } from './weights.js';

/** Version in the names of cached files. Raise it when the same sources are written differently. */
const FORMAT = 1;

export const matrixTypes: Readonly<Record<GgufFileType, WrittenType>> = {
  q8_0: 'Q8_0',
  f16: 'F16',
  bf16: 'BF16',
  f32: 'F32',
};

export interface ConversionProgress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface ConvertOptions {
  /** Storage type of the matrices; norms and biases are F32. Default: q8_0. */
  readonly type?: GgufFileType;
  /** Folder for converted files. Default: `defaultGgufCache()`. */
  readonly cacheFolder?: string;
  /** Path of the output, instead of one in the cache. An existing file is replaced. */
  readonly out?: string;
  readonly onProgress?: (progress: ConversionProgress) => void;
  /** Ends the conversion with CANCELLED and leaves no file. */
  readonly signal?: AbortSignal;
  /** Time in ms after which another conversion's unfinished file that does not grow is replaced. Default: a minute. */
  readonly staleMs?: number;
}

export interface Conversion {
  readonly path: string;
  readonly bytes: number;
  /** The file was in the cache, or another conversion wrote it meanwhile. */
  readonly isReused: boolean;
}

export function defaultGgufCache(): string {
  return join(cacheFolder(), 'gguf');
}

/**
 * Converts a Qwen2 or Qwen2.5 folder in transformers' layout (base or instruct, one safetensors file or shards) to a
 * GGUF file for llama.cpp. Reads and writes a few megabytes at a time. Unchanged sources are not converted twice.
 *
 * @throws InferenceError CHECKPOINT_INVALID, MODEL_UNSUPPORTED, CANCELLED, and OUT_OF_MEMORY if the disk is full
 */
export async function convertToGguf(folder: string, options: ConvertOptions = {}): Promise<Conversion> {
  const { type = 'q8_0', out, signal, onProgress, staleMs } = options;
  const files = await readWeightFiles(folder, ['model']);
  const sources = await fingerprint(folder, files);
  const folderOfCache = options.cacheFolder ?? defaultGgufCache();
  const path = resolve(out ?? join(folderOfCache, `qwen2-${sources.slice(0, 32)}-${type}.gguf`));
  const planned = await planConversion(folder, files, type);
  const { bytes } = planGguf(planned);
  const report = (bytesDone: number) => onProgress?.({ bytesDone, bytesTotal: bytes });
  const wrote = await writeWhole(path, {
    bytes,
    remedy: 'free some, name another folder or convert to a smaller type',
    signal,
    staleMs,
    onBytes: report,
    isWhole: async () => out === undefined && (await isWhole(path, bytes)),
    write: (handle) => writeGguf(handle, planned, { ...(signal && { signal }), onBytes: report }),
    check: async () => {
      if ((await fingerprint(folder, files)) === sources) return;
      throw new InferenceError('CHECKPOINT_INVALID', `${folder} changed while it was converted; convert it again`);
    },
  });
  if (!wrote) report(bytes);
  return { path, bytes, isReused: !wrote };
}

async function planConversion(folder: string, files: WeightFiles, type: GgufFileType): Promise<GgufFile> {
  const config = await readQwenConfig(folder);
  const vocabulary = await readVocabulary(folder, config.vocabSize);
  return {
    metadata: qwenMetadata(basename(await realpath(folder)), config, vocabulary, type),
    tensors: ggufTensors(files, config, matrixTypes[type]),
  };
}

/** Fingerprint of the sources: the contents of small files; path, size and time of weight files. */
async function fingerprint(folder: string, files: WeightFiles): Promise<string> {
  const hash = createHash('sha256').update(`${FORMAT}\n`);
  for (const name of ['config.json', 'generation_config.json', ...vocabularyFiles]) {
    const bytes = await readFile(join(folder, name)).catch(() => undefined);
    if (bytes !== undefined) hash.update(`${name} ${bytes.length}\n`).update(bytes);
  }
  const shards = [...new Set([...files.tensors.values()].map(({ file }) => file))].sort();
  for (const shard of shards) {
    const entry = await stat(shard, { bigint: true }).catch(() => undefined);
    hash.update(`${shard} ${entry?.size} ${entry?.mtimeNs}\n`);
  }
  return hash.update(await realpath(folder)).digest('hex');
}

async function isWhole(path: string, bytes: number): Promise<boolean> {
  const header = await readGgufHeader(path).catch(() => undefined);
  return header?.fileBytes === bytes;
}
