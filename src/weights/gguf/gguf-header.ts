import { InferenceError } from '../../errors.js';
import { elementCount } from '../../std/element-count.js';
import { shown } from '../../std/shown.js';
import { openFile } from '../open-file.js';
import { ByteCursor } from './byte-cursor.js';
import { aligned, GGUF_ALIGNMENT, GGUF_MAGIC, GGUF_VERSION, tensorTypes, valueTypes } from './gguf-types.js';

/** The largest vocabularies (256,000 tokens with their merges) make headers of 15 MB. */
const MAX_HEADER_BYTES = 64 * 1024 * 1024;
/** Published files have 20 to 60 entries. */
const MAX_ENTRIES = 10_000;
/** Llama 405B has 1,138 tensors; experts are stored together. */
const MAX_TENSORS = 100_000;
/** Chat templates are the longest strings, tens of kilobytes. */
const MAX_STRING_BYTES = 16 * 1024 * 1024;
/** Elements of all arrays: the tokens of the largest vocabularies, their scores, types and merges are 1.1 million. */
const MAX_ARRAY_ELEMENTS = 3_000_000;
/** Elements that are read at once. */
const ARRAY_CHUNK = 4_096;
/** ggml's own limit is 4; the patch embedding of a WAN, [C, c, t, h, w], is stored with all five of its dimensions. */
const MAX_RANK = 5;
/** An alignment is a page at most; more would only serve to overflow. */
const MAX_ALIGNMENT = 65_536;

/** 64-bit integers are numbers here, exact to 2^53, which no count of a model reaches. */
export type GgufValue = number | boolean | string | readonly number[] | readonly boolean[] | readonly string[];

export interface GgufTensorInfo {
  readonly name: string;
  /** Name in ggml. */
  readonly type: string;
  /** Row-major, the slowest dimension first. */
  readonly shape: readonly number[];
  /** Offset from the start of the file. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

export interface GgufHeader {
  readonly path: string;
  readonly fileBytes: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensorInfo>;
}

type Refuse = (problem: string) => never;

/**
 * Reads the header of a GGUF file and checks that every tensor it names lies in the file. No tensor is read.
 *
 * @throws InferenceError CHECKPOINT_INVALID for what is no whole GGUF file, MODEL_UNSUPPORTED for another version or an unknown type
 * of tensor; one sentence each
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  const refuse: Refuse = (problem) => {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
  };
  const handle = await openFile(path, (problem) =>
    refuse(problem === 'is not a file' ? 'is not a file; give a .gguf file' : 'does not exist or cannot be read'),
  );
  try {
    const entry = await handle.stat();
    const cursor = new ByteCursor(handle, entry.size, MAX_HEADER_BYTES, refuse);
    const magic = entry.size < 4 ? '' : (await cursor.take(4)).toString('latin1');
    if (magic !== GGUF_MAGIC) refuse('does not begin with "GGUF"; it is not a GGUF file');
    assertVersion(path, await cursor.uint32());
    const tensorCount = await cursor.uint64();
    const entryCount = await cursor.uint64();
    if (tensorCount > MAX_TENSORS) refuse(`claims ${tensorCount} tensors, the limit is ${MAX_TENSORS}`);
    if (entryCount > MAX_ENTRIES) refuse(`claims ${entryCount} metadata entries, the limit is ${MAX_ENTRIES}`);
    const metadata = new Map<string, GgufValue>();
    let elements = 0;
    for (let i = 0; i < entryCount; i += 1) {
      const key = await cursor.string(MAX_STRING_BYTES);
      if (metadata.has(key)) refuse(`has metadata "${shown(key)}" twice`);
      const value = await readEntry(cursor, key, MAX_ARRAY_ELEMENTS - elements, refuse);
      if (Array.isArray(value)) elements += value.length;
      metadata.set(key, value);
    }
    const infos: TensorEntry[] = [];
    for (let i = 0; i < tensorCount; i += 1) infos.push(await readTensorEntry(cursor, path, refuse));
    const tensors = placeTensors(infos, cursor.position, alignmentOf(metadata, refuse), entry.size, refuse);
    return { path, fileBytes: entry.size, metadata, tensors };
  } finally {
    await handle.close();
  }
}

/** Versions 2 and 3 are laid out alike. */
function assertVersion(path: string, version: number): void {
  if (version === 2 || version === GGUF_VERSION) return;
  const why =
    (version & 0xffff) === 0 ? 'is a big-endian GGUF file' : `is a GGUF file of version ${version}, 2 and 3 are known`;
  throw new InferenceError('MODEL_UNSUPPORTED', `${path} ${why}; convert the model again`);
}

async function readEntry(cursor: ByteCursor, key: string, room: number, refuse: Refuse): Promise<GgufValue> {
  const type = await cursor.uint32();
  if (type !== valueTypes.array) return readScalar(cursor, type, key, refuse);
  const elementType = await cursor.uint32();
  const count = await cursor.uint64();
  if (count > room) {
    refuse(`claims ${count} elements in metadata "${shown(key)}", the limit of a file is ${MAX_ARRAY_ELEMENTS}`);
  }
  if (elementType === valueTypes.string) {
    const texts: string[] = [];
    // A promise for each of a million strings would take seconds.
    while (texts.length < count)
      texts.push(cursor.nextString(MAX_STRING_BYTES) ?? (await cursor.string(MAX_STRING_BYTES)));
    return texts;
  }
  const { bytes, read } = scalars.get(elementType) ?? refuse(unknownType(key, elementType));
  const values: (number | boolean)[] = [];
  while (values.length < count) {
    const taken = Math.min(ARRAY_CHUNK, count - values.length);
    const chunk = await cursor.take(taken * bytes);
    for (let i = 0; i < taken; i += 1) values.push(read(chunk, i * bytes));
  }
  return values as readonly number[] | readonly boolean[];
}

interface ScalarType {
  readonly bytes: number;
  read(bytes: Buffer, at: number): number | boolean;
}

const scalars: ReadonlyMap<number, ScalarType> = new Map<number, ScalarType>([
  [valueTypes.bool, { bytes: 1, read: (bytes, at) => bytes.readUInt8(at) !== 0 }],
  [valueTypes.uint8, { bytes: 1, read: (bytes, at) => bytes.readUInt8(at) }],
  [valueTypes.int8, { bytes: 1, read: (bytes, at) => bytes.readInt8(at) }],
  [valueTypes.uint16, { bytes: 2, read: (bytes, at) => bytes.readUInt16LE(at) }],
  [valueTypes.int16, { bytes: 2, read: (bytes, at) => bytes.readInt16LE(at) }],
  [valueTypes.uint32, { bytes: 4, read: (bytes, at) => bytes.readUInt32LE(at) }],
  [valueTypes.int32, { bytes: 4, read: (bytes, at) => bytes.readInt32LE(at) }],
  [valueTypes.float32, { bytes: 4, read: (bytes, at) => bytes.readFloatLE(at) }],
  [valueTypes.uint64, { bytes: 8, read: (bytes, at) => Number(bytes.readBigUInt64LE(at)) }],
  [valueTypes.int64, { bytes: 8, read: (bytes, at) => Number(bytes.readBigInt64LE(at)) }],
  [valueTypes.float64, { bytes: 8, read: (bytes, at) => bytes.readDoubleLE(at) }],
]);

function unknownType(key: string, type: number): string {
  return `gives metadata "${shown(key)}" the type ${type}, which does not exist; it is corrupt`;
}

async function readScalar(
  cursor: ByteCursor,
  type: number,
  key: string,
  refuse: Refuse,
): Promise<number | boolean | string> {
  if (type === valueTypes.string) return cursor.string(MAX_STRING_BYTES);
  const { bytes, read } = scalars.get(type) ?? refuse(unknownType(key, type));
  return read(await cursor.take(bytes), 0);
}

/** A tensor's entry, its offset still from the start of the data. */
type TensorEntry = GgufTensorInfo;

async function readTensorEntry(cursor: ByteCursor, path: string, refuse: Refuse): Promise<TensorEntry> {
  const name = await cursor.string(MAX_STRING_BYTES);
  const rank = await cursor.uint32();
  if (rank > MAX_RANK) refuse(`gives tensor "${shown(name)}" ${rank} dimensions, the limit is ${MAX_RANK}`);
  const dims: number[] = [];
  for (let i = 0; i < rank; i += 1) dims.push(await cursor.uint64());
  const id = await cursor.uint32();
  const type = tensorTypes.get(id);
  if (type === undefined) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} stores tensor "${shown(name)}" as type ${id}, which is not known`,
    );
  }
  const elements = elementCount(dims);
  const length = (elements / type.blockElements) * type.blockBytes;
  if (!Number.isSafeInteger(length) || (dims[0] ?? 1) % type.blockElements !== 0) {
    refuse(`gives tensor "${shown(name)}" the shape [${dims}], which ${type.name} cannot have`);
  }
  return { name, type: type.name, shape: dims.reverse(), offset: await cursor.uint64(), length };
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>, refuse: Refuse): number {
  const value = metadata.get('general.alignment') ?? GGUF_ALIGNMENT;
  if (typeof value === 'number' && value > 0 && value <= MAX_ALIGNMENT && Number.isInteger(Math.log2(value))) {
    return value;
  }
  return refuse(`has general.alignment ${shown(String(value))}, which must be a power of 2 up to ${MAX_ALIGNMENT}`);
}

function placeTensors(
  infos: readonly TensorEntry[],
  headerEnd: number,
  alignment: number,
  fileBytes: number,
  refuse: Refuse,
): Map<string, GgufTensorInfo> {
  const start = aligned(headerEnd, alignment);
  const tensors = new Map<string, GgufTensorInfo>();
  for (const info of infos) {
    const name = shown(info.name);
    if (tensors.has(info.name)) refuse(`has tensor "${name}" twice`);
    if (info.offset % alignment !== 0) refuse(`puts tensor "${name}" at an offset that is no multiple of ${alignment}`);
    const offset = start + info.offset;
    if (offset + info.length > fileBytes) {
      refuse(
        `is truncated: tensor "${name}" ends at byte ${offset + info.length}, the file has ${fileBytes}; download it again`,
      );
    }
    tensors.set(info.name, { ...info, offset });
  }
  return tensors;
}
