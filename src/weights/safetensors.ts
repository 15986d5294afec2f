import { realpath } from 'node:fs/promises';
import { InferenceError } from '../errors.js';
import { parseBoundedJson } from '../std/bounded-json.js';
import { elementCount } from '../std/element-count.js';
import { shown } from '../std/shown.js';
import { float8Types } from './float8.js';
import { openFile } from './open-file.js';

/** Storage types that darkroom writes weights in. */
export const floatTypes = ['F32', 'F16', 'BF16'] as const;
export type FloatType = (typeof floatTypes)[number];
/** Bytes of one element. */
export const floatBytes: Readonly<Record<FloatType, number>> = { F32: 4, F16: 2, BF16: 2 };

/** Storage types that darkroom reads weights in. The format knows more; they are refused by name when a graph asks for one. */
export const storedTypes = [...floatTypes, ...float8Types] as const;
export type StoredType = (typeof storedTypes)[number];

/** Undefined for a type that no graph takes. */
export function storedTypeOf({ dtype }: Pick<TensorRecord, 'dtype'>): StoredType | undefined {
  return storedTypes.find((type) => type === dtype);
}

/** Bits of one element of each type the format names. https://github.com/huggingface/safetensors#format */
const BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  F4: 4,
};

/** First bytes of other files that models come in. */
const OTHER_FORMATS: readonly (readonly [magic: string, name: string])[] = [
  ['GGUF', 'a GGUF file'],
  ['PK\x03\x04', 'a PyTorch file (a zip archive)'],
];

/** The reference takes up to 100 MB. Published headers have at most a few, most of it metadata. */
const MAX_HEADER_BYTES = 32_000_000;
/** SDXL has 2,500 tensors and WAN 14B 1,100. */
const MAX_TENSORS = 100_000;
/** The longest names of LoRA files have some 150 characters. */
const MAX_NAME_CHARACTERS = 1_024;
/** A tensor is an object with a type and two lists. Metadata are strings. */
const JSON_BUDGET = { maxDepth: 8, maxValues: 2_000_000 };
/** ONNX and every framework stop far below; more dimensions only serve to overflow a product. */
const MAX_RANK = 16;

/** The place of one tensor: row-major little-endian elements in a real file. */
export interface TensorRecord {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Real path of the file, symbolic links resolved. */
  readonly file: string;
  /** Byte offset from the start of the file. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

export interface SafetensorsFile {
  readonly file: string;
  readonly tensors: ReadonlyMap<string, TensorRecord>;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Reads the header of a safetensors file and checks all of it: every offset lies in the file, tensors neither overlap nor
 * leave holes, and every length is what type and shape give. No tensor is read.
 *
 * @throws InferenceError CHECKPOINT_INVALID, one sentence that names the file and what is wrong; MODEL_UNSUPPORTED for a file of
 * another format
 */
export async function readSafetensors(path: string): Promise<SafetensorsFile> {
  const refuse = (problem: string): never => {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
  };
  const file = await realpath(path).catch(() => refuse('does not exist or cannot be read'));
  const handle = await openFile(file, refuse);
  try {
    const { size } = await handle.stat();
    if (size < 8) refuse(`is ${size} bytes long, too short for a safetensors file; download it again`);
    const prefix = Buffer.alloc(8);
    await handle.read(prefix, 0, 8, 0);
    const other = OTHER_FORMATS.find(([magic]) => prefix.toString('latin1').startsWith(magic));
    if (other !== undefined) {
      throw new InferenceError('MODEL_UNSUPPORTED', `${path} is ${other[1]}; give the .safetensors file of this model`);
    }
    const headerBytes = prefix.readBigUInt64LE();
    if (headerBytes > BigInt(MAX_HEADER_BYTES)) {
      refuse(`claims a header of ${headerBytes} bytes, the limit is ${MAX_HEADER_BYTES}; it is not a safetensors file`);
    }
    const header = Buffer.alloc(Number(headerBytes));
    const { bytesRead } = await handle.read(header, 0, header.length, 8);
    if (bytesRead !== header.length) {
      refuse(`ends inside its header (${8 + bytesRead} of ${8 + header.length} bytes); download it again`);
    }
    return { file, ...parseHeader(header, file, size, refuse) };
  } finally {
    await handle.close();
  }
}

type Refuse = (problem: string) => never;

function parseHeader(header: Buffer, file: string, fileBytes: number, refuse: Refuse): Omit<SafetensorsFile, 'file'> {
  let json: unknown;
  try {
    json = parseBoundedJson(header.toString('utf8'), JSON_BUDGET);
  } catch (error) {
    if (error instanceof RangeError) refuse(`has a header that ${error.message}`);
    refuse('has a header that is not JSON; it is not a safetensors file');
  }
  if (!isRecord(json)) return refuse('has a header that is not a JSON object');
  const start = 8 + header.length;
  const tensors: TensorRecord[] = [];
  const metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(json)) {
    if (name === '__metadata__') {
      // Some writers have null where there is no metadata.
      if (entry === null) continue;
      if (!isRecord(entry)) return refuse('has metadata that is not a JSON object');
      for (const [key, value] of Object.entries(entry)) metadata[key] = String(value);
    } else {
      if (name.length > MAX_NAME_CHARACTERS) {
        refuse(`names a tensor by ${name.length} characters ("${shown(name)}"), the limit is ${MAX_NAME_CHARACTERS}`);
      }
      tensors.push(parseTensor(name, entry, file, start, refuse));
    }
    if (tensors.length > MAX_TENSORS) refuse(`names more than ${MAX_TENSORS} tensors`);
  }
  tensors.sort((a, b) => a.offset - b.offset || a.length - b.length);
  let end = start;
  for (const tensor of tensors) {
    if (tensor.offset < end) {
      refuse(`has overlapping tensors: "${tensor.name}" starts at byte ${tensor.offset}, before ${end}`);
    }
    if (tensor.offset > end) refuse(`has a hole of ${tensor.offset - end} bytes before tensor "${tensor.name}"`);
    end = tensor.offset + tensor.length;
    if (end > fileBytes) {
      refuse(`is truncated: tensor "${tensor.name}" ends at byte ${end}, the file has ${fileBytes}; download it again`);
    }
  }
  if (end < fileBytes) refuse(`has ${fileBytes - end} bytes after its last tensor; it is corrupt`);
  return { tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), metadata };
}

function parseTensor(name: string, entry: unknown, file: string, start: number, refuse: Refuse): TensorRecord {
  if (!isRecord(entry)) return refuse(`describes tensor "${name}" by something that is not an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  const bits = typeof dtype === 'string' && Object.hasOwn(BITS, dtype) ? BITS[dtype] : undefined;
  if (typeof dtype !== 'string' || bits === undefined) {
    return refuse(`gives tensor "${name}" the type ${shownJson(dtype)}, which is no safetensors type`);
  }
  if (!isCounts(shape)) {
    return refuse(
      `gives tensor "${name}" the shape ${shownJson(shape)}, which is no list of at most ${MAX_RANK} dimensions`,
    );
  }
  const [begin, end, ...rest] = isCounts(offsets) ? offsets : [];
  if (begin === undefined || end === undefined || rest.length > 0 || end < begin) {
    return refuse(`gives tensor "${name}" the offsets ${shownJson(offsets)}, which are no range`);
  }
  const elements = elementCount(shape);
  const length = Math.ceil((elements * bits) / 8);
  if (length !== end - begin) {
    refuse(`holds ${end - begin} bytes for tensor "${name}", but ${dtype} [${shape}] takes ${length}`);
  }
  return { name, dtype, shape, file, offset: start + begin, length };
}

/** A value of the header, fit for a message. */
function shownJson(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return (
    Array.isArray(value) && value.length <= MAX_RANK && value.every((item) => Number.isSafeInteger(item) && item >= 0)
  );
}
