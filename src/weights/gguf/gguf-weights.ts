import { createHash } from 'node:crypto';
import { realpath, stat } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { cacheFolder as defaultCacheFolder } from '../../environment.js';
import { InferenceError } from '../../errors.js';
import { elementCount } from '../../std/element-count.js';
import { shown } from '../../std/shown.js';
import { writeWhole } from '../../std/write-whole.js';
import { bytesFromFloats } from '../half-floats.js';
import { readChunks } from '../read-chunks.js';
import type { WeightFiles, WeightRecord } from '../weight-files.js';
import { blockOf, dequantize, isQuantized, type QuantizedType, quantizedTypes } from './dequantize.js';
import { type GgufHeader, type GgufTensorInfo, readGgufHeader } from './gguf-header.js';

/** Version in the names of converted files. Raise it when the same source is converted differently. */
const FORMAT = 1;
/** Elements that are converted at once: a multiple of every block, 8 MB as F32. */
const CHUNK_ELEMENTS = 2 ** 21;
/** Metadata in which ComfyUI-GGUF keeps the shape of a tensor that it had to fold into rows of whole blocks. */
const ORIGINAL_SHAPE = 'comfy.gguf.orig_shape.';
/** Characters of the source's name in that of the converted file: names of files have at most 255 bytes, and a part's name is longer. */
const MAX_STEM = 40;
/** The same limit as for safetensors. */
const MAX_RANK = 16;
/** Types whose elements a graph can take, or refuse by name, where they lie. */
const PLAIN = ['F32', 'F16', 'BF16', 'I8', 'I16', 'I32', 'I64', 'F64'];

export interface GgufWeightsOptions {
  /** Folder for converted weights. Default: darkroom/weights in the user's folder for caches. */
  readonly cacheFolder?: string | undefined;
}

interface Converted {
  readonly record: WeightRecord;
  readonly type: QuantizedType;
  readonly source: GgufTensorInfo;
}

export function defaultWeightsCache(): string {
  return join(defaultCacheFolder(), 'weights');
}

/**
 * Reads a GGUF file as the weights of a network, under the names that it has for them. Tensors of F32, F16 and BF16 are used where they
 * lie. The others are converted to F16 by `prepare`, in a safetensors file of the cache folder which is found again by the path, size and
 * time of the source; the records that this function returns point into that file already. Only the header is read here.
 *
 * @throws InferenceError CHECKPOINT_INVALID for a damaged or split file, MODEL_UNSUPPORTED for a type of tensor that is not read
 */
export async function readGgufWeights(path: string, options: GgufWeightsOptions = {}): Promise<WeightFiles> {
  const header = await readGgufHeader(path);
  const parts = header.metadata.get('split.count');
  if (typeof parts === 'number' && parts > 1) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is one of ${parts} parts; merge them with llama-gguf-split --merge`,
    );
  }
  assertApart(header);
  const file = await realpath(path);
  const sources = await fingerprint(file);
  const name = `${basename(file, extname(file)).slice(0, MAX_STEM)}-${sources.slice(0, 32)}.safetensors`;
  const target = join(await realFolder(resolve(options.cacheFolder ?? defaultWeightsCache())), name);
  const tensors = new Map<string, WeightRecord>();
  const converted: Omit<Converted, 'record'>[] = [];
  for (const source of header.tensors.values()) {
    const { type, offset, length } = source;
    const shape = shapeOf(header, source);
    if (isQuantized(type)) converted.push({ type, source: { ...source, shape } });
    else if (PLAIN.includes(type))
      tensors.set(source.name, { name: source.name, dtype: type, shape, file, offset, length });
    else {
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `${path} stores tensor "${shown(source.name)}" as ${type}; get a file of F32, F16, BF16, ${quantizedTypes.join(', ')}`,
      );
    }
  }
  const plan = planSafetensors(target, converted);
  for (const { record } of plan.tensors) tensors.set(record.name, record);
  const files: WeightFiles = { path, tensors, metadata: {} };
  if (converted.length === 0) return files;
  return { ...files, prepare: () => convert(file, target, plan, sources) };
}

/** Bytes that serve as two tensors would make the converted file larger than any that was ever quantised. */
function assertApart({ path, tensors }: GgufHeader): void {
  let end = 0;
  for (const { name, offset, length } of [...tensors.values()].sort(
    (a, b) => a.offset - b.offset || a.length - b.length,
  )) {
    if (offset < end) {
      throw new InferenceError(
        'CHECKPOINT_INVALID',
        `${path} has overlapping tensors: "${shown(name)}" starts at byte ${offset}, before ${end}`,
      );
    }
    end = offset + length;
  }
}

function shapeOf({ path, metadata }: GgufHeader, { name, shape }: GgufTensorInfo): readonly number[] {
  const original = metadata.get(ORIGINAL_SHAPE + name);
  if (original === undefined) return shape;
  const sizes = Array.isArray(original) && original.length <= MAX_RANK ? original : [];
  if (!sizes.every((size) => Number.isSafeInteger(size) && size >= 0) || elementCount(sizes) !== elementCount(shape)) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${path} gives tensor "${shown(name)}" the original shape ${shown(JSON.stringify(original))}, which its ${elementCount(shape)} elements do not have; it is corrupt`,
    );
  }
  return sizes;
}

async function fingerprint(file: string): Promise<string> {
  const { size, mtimeNs } = await stat(file, { bigint: true });
  return createHash('sha256').update(`${FORMAT}\n${file} ${size} ${mtimeNs}\n`).digest('hex');
}

/** The real path of a folder that need not be there yet: the runtime resolves links, too. */
async function realFolder(folder: string): Promise<string> {
  const real = await realpath(folder).catch(() => undefined);
  if (real !== undefined || dirname(folder) === folder) return real ?? folder;
  return join(await realFolder(dirname(folder)), basename(folder));
}

interface SafetensorsPlan {
  readonly header: Buffer;
  readonly tensors: readonly Converted[];
  readonly bytes: number;
}

function planSafetensors(file: string, tensors: readonly Omit<Converted, 'record'>[]): SafetensorsPlan {
  const entries: Record<string, unknown> = {};
  let end = 0;
  const places = tensors.map(({ source: { name, shape } }) => {
    const offset = end;
    end += 2 * elementCount(shape);
    entries[name] = { dtype: 'F16', shape, data_offsets: [offset, end] };
    return { offset, length: end - offset };
  });
  const json = Buffer.from(JSON.stringify(entries));
  // The format asks for data that begins at a multiple of 8, and for spaces up to there.
  const header = Buffer.alloc(8 + 8 * Math.ceil(json.length / 8), ' ');
  header.writeBigUInt64LE(BigInt(header.length - 8));
  json.copy(header, 8);
  return {
    header,
    bytes: header.length + end,
    tensors: tensors.map((tensor, i) => {
      const { offset = 0, length = 0 } = places[i] ?? {};
      const { name, shape } = tensor.source;
      const record = { name, dtype: 'F16', shape, file, offset: header.length + offset, length, storedAs: tensor.type };
      return { ...tensor, record };
    }),
  };
}

/** Reads and writes a few megabytes at a time, with a pause for other work after each. */
async function convert(
  file: string,
  target: string,
  { header, tensors, bytes }: SafetensorsPlan,
  sources: string,
): Promise<void> {
  const assertSame = async () => {
    if ((await fingerprint(file)) === sources) return;
    throw new InferenceError('CHECKPOINT_INVALID', `${file} changed while it was converted; load it again`);
  };
  await writeWhole(target, {
    bytes,
    remedy: 'free some, or name another folder with WEIGHTS_CACHE',
    // It has this name since it was whole.
    isWhole: async () => (await stat(target).catch(() => undefined))?.size === bytes,
    write: async (handle) => {
      await handle.writeFile(header);
      for (const { type, source } of tensors) {
        const block = blockOf(type);
        const { offset, length } = source;
        for await (const stored of readChunks(
          { file, offset, length },
          (CHUNK_ELEMENTS / block.elements) * block.bytes,
        )) {
          await handle.writeFile(halvesOf(file, source.name, type, stored));
        }
      }
    },
    check: assertSame,
  });
}

function halvesOf(file: string, name: string, type: QuantizedType, stored: Uint8Array): Uint8Array {
  const halves = bytesFromFloats('F16', dequantize(type, stored));
  const bits = new Uint16Array(halves.buffer);
  for (let i = 0; i < bits.length; i += 1) {
    if (((bits[i] ?? 0) & 0x7c00) === 0x7c00) {
      throw new InferenceError(
        'CHECKPOINT_INVALID',
        `${file}: tensor "${shown(name)}" holds a number that is not finite in float16; it is damaged, get it again`,
      );
    }
  }
  return halves;
}
