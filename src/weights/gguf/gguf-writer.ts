import type { FileHandle } from 'node:fs/promises';
import { elementCount } from '../../std/element-count.js';
import {
  aligned,
  GGUF_MAGIC,
  GGUF_VERSION,
  valueTypes,
  type WrittenType,
  writtenBytes,
  writtenTypes,
} from './gguf-types.js';

/** A metadata value with its storage type: readers look for one type each. */
export type MetadataValue =
  | { readonly kind: 'uint32' | 'float32'; readonly value: number }
  | { readonly kind: 'bool'; readonly value: boolean }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'strings'; readonly value: readonly string[] }
  | { readonly kind: 'int32s'; readonly value: readonly number[] };

export interface GgufTensor {
  readonly name: string;
  /** Row-major, the slowest dimension first, as safetensors has it; the file lists them the other way round. */
  readonly shape: readonly number[];
  readonly type: WrittenType;
  /** The stored bytes, in any pieces; asked for once, when it is this tensor's turn. */
  readonly read: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export interface GgufFile {
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: readonly GgufTensor[];
}

export interface GgufWriteOptions {
  readonly signal?: AbortSignal;
  /** Called after every piece with the bytes written so far, header included. */
  readonly onBytes?: (done: number) => void;
}

/** Header and place of every tensor: what is known of a file before a weight is read. */
export interface GgufPlan {
  readonly header: Buffer;
  /** Bytes of the whole file. */
  readonly bytes: number;
}

/** Lays out a file; the header is a few megabytes at most, nearly all of it the vocabulary. */
export function planGguf({ metadata, tensors }: GgufFile): GgufPlan {
  const parts: Uint8Array[] = [
    Buffer.from(GGUF_MAGIC),
    uint32(GGUF_VERSION),
    uint64(tensors.length),
    uint64(metadata.size),
  ];
  for (const [key, value] of metadata) parts.push(string(key), metadataValue(value));
  let offset = 0;
  for (const { name, shape, type } of tensors) {
    parts.push(string(name), uint32(shape.length), ...[...shape].reverse().map(uint64));
    parts.push(uint32(writtenTypes[type]), uint64(offset));
    offset = aligned(offset + bytesOf(type, shape));
  }
  const unaligned = Buffer.concat(parts);
  const header = Buffer.concat([unaligned], aligned(unaligned.length));
  return { header, bytes: header.length + offset };
}

/**
 * Writes a file, tensor after tensor, holding one piece of one at a time.
 * @throws what `read` throws, what the file system does, and the signal's reason
 */
export async function writeGguf(out: FileHandle, file: GgufFile, options: GgufWriteOptions = {}): Promise<void> {
  const { signal, onBytes } = options;
  let done = 0;
  const write = async (bytes: Uint8Array) => {
    signal?.throwIfAborted();
    let written = 0;
    while (written < bytes.length) {
      written += (await out.write(bytes, written, bytes.length - written, done + written)).bytesWritten;
    }
    done += bytes.length;
    onBytes?.(done);
  };
  await write(planGguf(file).header);
  for (const { name, shape, type, read } of file.tensors) {
    const start = done;
    for await (const bytes of read()) await write(bytes);
    const wanted = bytesOf(type, shape);
    if (done - start !== wanted) throw new Error(`${name} gave ${done - start} bytes, it has ${wanted}`);
    if (aligned(done) > done) await write(Buffer.alloc(aligned(done) - done));
  }
}

function bytesOf(type: WrittenType, shape: readonly number[]): number {
  return writtenBytes(type, elementCount(shape));
}

function metadataValue(entry: MetadataValue): Buffer {
  return Buffer.concat(valueParts(entry));
}

function valueParts(entry: MetadataValue): Uint8Array[] {
  switch (entry.kind) {
    case 'uint32':
      return [uint32(valueTypes.uint32), uint32(entry.value)];
    case 'float32': {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatLE(entry.value);
      return [uint32(valueTypes.float32), bytes];
    }
    case 'bool':
      return [uint32(valueTypes.bool), Uint8Array.of(entry.value ? 1 : 0)];
    case 'string':
      return [uint32(valueTypes.string), string(entry.value)];
    case 'strings':
      return [
        uint32(valueTypes.array),
        uint32(valueTypes.string),
        uint64(entry.value.length),
        ...entry.value.map(string),
      ];
    case 'int32s': {
      const bytes = Buffer.alloc(4 * entry.value.length);
      for (const [i, value] of entry.value.entries()) bytes.writeInt32LE(value, 4 * i);
      return [uint32(valueTypes.array), uint32(valueTypes.int32), uint64(entry.value.length), bytes];
    }
  }
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([uint64(bytes.length), bytes]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
