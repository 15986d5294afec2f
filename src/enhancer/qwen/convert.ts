import { createHash } from 'node:crypto';
import { mkdir, open, readFile, realpath, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { cacheFolder } from '../../environment.js';
import { InferenceError } from '../../errors.js';
import { formatBytes } from '../../std/format-bytes.js';
import { readGgufHeader } from '../../weights/gguf/gguf-header.js';
import type { WrittenType } from '../../weights/gguf/gguf-types.js';
import { type GgufFile, planGguf, writeGguf } from '../../weights/gguf/gguf-writer.js';
import { readWeightFiles, type WeightFiles } from '../../weights/weight-files.js';
import { readQwenConfig } from './config.js';
import type { GgufFileType } from './gguf-file-types.js';
import { qwenMetadata } from './metadata.js';
import { writeOnce } from './part-file.js';
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
  try {
    await mkdir(dirname(path), { recursive: true });
    const wrote = await writeOnce(path, {
      signal,
      ...(staleMs !== undefined && { staleMs }),
      onBytes: report,
      isWhole: async () => out === undefined && (await isWhole(path, bytes)),
      write: async (part) => {
        await assertRoom(path, bytes);
        await writePart(part, planned, { ...(signal && { signal }), onBytes: report });
        if ((await fingerprint(folder, files)) !== sources) {
          throw new InferenceError('CHECKPOINT_INVALID', `${folder} changed while it was converted; convert it again`);
        }
      },
    });
    if (!wrote) report(bytes);
    return { path, bytes, isReused: !wrote };
  } catch (error) {
    throw asInferenceError(error, path, bytes, signal);
  }
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

/** Check the free space before the first byte is written. */
async function assertRoom(path: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  if (bavail * bsize < bytes) throw diskFull(path, bytes, `${formatBytes(bavail * bsize, 2)} free`);
}

async function writePart(part: string, file: GgufFile, options: Parameters<typeof writeGguf>[2]): Promise<void> {
  const handle = await open(part, 'r+');
  try {
    await writeGguf(handle, file, options);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function diskFull(path: string, bytes: number, left: string, cause?: unknown): InferenceError {
  return new InferenceError(
    'OUT_OF_MEMORY',
    `${dirname(path)} has no room for ${formatBytes(bytes, 2)} (${left}); free some, name another folder or convert to a smaller type`,
    { cause },
  );
}

function asInferenceError(error: unknown, path: string, bytes: number, signal: AbortSignal | undefined): unknown {
  if (error instanceof InferenceError) return error;
  if (signal?.aborted) return new InferenceError('CANCELLED', 'the conversion was cancelled', { cause: error });
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') return diskFull(path, bytes, `${code}`, error);
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOTDIR' || code === 'EEXIST') {
    return new InferenceError('CHECKPOINT_INVALID', `${path} cannot be written (${code}); name another folder`, {
      cause: error,
    });
  }
  return error;
}
