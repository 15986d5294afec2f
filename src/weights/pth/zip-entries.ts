import type { FileHandle } from 'node:fs/promises';

/** The place of one stored file in an archive. */
export interface ZipEntry {
  readonly name: string;
  /** Byte offset of its content from the start of the archive. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

type Refuse = (problem: string) => never;

/** A checkpoint has one entry a tensor and a handful beside; WAN 14B has 1,100. */
const MAX_ENTRIES = 20_000;
/** So many entries with names of 100 bytes take 3 MB. */
const MAX_DIRECTORY_BYTES = 16_000_000;

/** Bytes of the record at the end, and of the longest comment that may follow it. */
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;
const LOCAL_HEADER_BYTES = 30;
/** Value of a field that stands in the zip64 record instead. */
const IN_ZIP64 = 0xffffffff;

/**
 * Reads the directory of a zip archive whose entries are stored, not compressed, and checks all of it: every entry lies in the
 * file where both its headers place it, none overlaps another, and no name leads out of the archive. No content is read.
 * https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7, 4.3.12 to 4.3.16 and 4.5.3
 */
export async function readZipEntries(
  handle: FileHandle,
  fileBytes: number,
  refuse: Refuse,
): Promise<ReadonlyMap<string, ZipEntry>> {
  const directory = await findDirectory(handle, fileBytes, refuse);
  const bytes = await readExactly(handle, directory.offset, directory.length, refuse);
  const listed = listEntries(bytes, directory.count, refuse);
  const entries = new Map<string, ZipEntry>();
  let end = 0;
  for (const { name, header, length } of listed.sort((a, b) => a.header - b.header)) {
    if (header < end) refuse(`has overlapping entries: "${name}" starts at byte ${header}, before ${end}`);
    const offset = await contentOffset(handle, name, header, directory.offset, refuse);
    end = offset + length;
    if (end > directory.offset) refuse(`has the entry "${name}", which ends at byte ${end}, inside its directory`);
    if (entries.has(name)) refuse(`has two entries "${name}"`);
    entries.set(name, { name, offset, length });
  }
  return entries;
}

interface Directory {
  readonly offset: number;
  readonly length: number;
  readonly count: number;
}

async function findDirectory(handle: FileHandle, fileBytes: number, refuse: Refuse): Promise<Directory> {
  const tailBytes = Math.min(fileBytes, END_BYTES + MAX_COMMENT_BYTES);
  const tail = await readExactly(handle, fileBytes - tailBytes, tailBytes, refuse);
  const at = tail.lastIndexOf('PK\x05\x06', tail.length - END_BYTES, 'latin1');
  if (tail.length < END_BYTES || at < 0) refuse('is truncated, or no zip archive: its directory is missing');
  const end = fileBytes - tailBytes + at;
  let [count, length, offset] = [tail.readUInt16LE(at + 10), tail.readUInt32LE(at + 12), tail.readUInt32LE(at + 16)];
  let limit = end;
  const locator = at - 20;
  if (locator >= 0 && tail.toString('latin1', locator, locator + 4) === 'PK\x06\x07') {
    limit = whole(tail.readBigUInt64LE(locator + 8));
    if (limit + 56 > end) refuse('has a zip64 record that lies outside the file');
    const record = await readExactly(handle, limit, 56, refuse);
    if (record.toString('latin1', 0, 4) !== 'PK\x06\x06') refuse('has no zip64 record where it says');
    [count, length, offset] = [
      whole(record.readBigUInt64LE(32)),
      whole(record.readBigUInt64LE(40)),
      whole(record.readBigUInt64LE(48)),
    ];
  }
  if (count > MAX_ENTRIES) refuse(`has ${count} entries, the limit is ${MAX_ENTRIES}`);
  if (length > MAX_DIRECTORY_BYTES) refuse(`has a directory of ${length} bytes, the limit is ${MAX_DIRECTORY_BYTES}`);
  if (offset + length > limit) refuse('has a directory that lies outside the file');
  return { offset, length, count };
}

interface Listed {
  readonly name: string;
  readonly header: number;
  readonly length: number;
}

function listEntries(bytes: Buffer, count: number, refuse: Refuse): Listed[] {
  const listed: Listed[] = [];
  let at = 0;
  while (listed.length < count) {
    if (at + 46 > bytes.length || bytes.toString('latin1', at, at + 4) !== 'PK\x01\x02') {
      refuse(`lists ${listed.length} entries where it promises ${count}`);
    }
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field));
    const nameEnd = at + 46 + (nameBytes ?? 0);
    const extraEnd = nameEnd + (extraBytes ?? 0);
    if (extraEnd + (commentBytes ?? 0) > bytes.length) refuse('has a directory that ends inside an entry');
    const name = bytes.toString('utf8', at + 46, nameEnd);
    assertName(name, refuse);
    if ((bytes.readUInt16LE(at + 8) & 1) !== 0) refuse(`has the entry "${name}" encrypted`);
    const zip64 = new Zip64Fields(bytes.subarray(nameEnd, extraEnd));
    const length = zip64.value(bytes.readUInt32LE(at + 24));
    const stored = zip64.value(bytes.readUInt32LE(at + 20));
    const header = zip64.value(bytes.readUInt32LE(at + 42));
    if (length === undefined || stored === undefined || header === undefined) {
      return refuse(`has the entry "${name}" without its zip64 sizes`);
    }
    if (bytes.readUInt16LE(at + 10) !== 0 || stored !== length) {
      refuse(
        `has the entry "${name}" compressed; PyTorch stores entries as they are, and only so can they be read in place`,
      );
    }
    listed.push({ name, header, length });
    at = extraEnd + (commentBytes ?? 0);
  }
  return listed;
}

/** The extra field 0x0001: those of size, stored size and offset that are too large for their place, in that order. */
class Zip64Fields {
  #left: Buffer;

  constructor(extra: Buffer) {
    this.#left = Buffer.alloc(0);
    for (let at = 0; at + 4 <= extra.length; ) {
      const end = at + 4 + extra.readUInt16LE(at + 2);
      if (extra.readUInt16LE(at) === 1) this.#left = extra.subarray(at + 4, end);
      at = end;
    }
  }

  value(plain: number): number | undefined {
    if (plain !== IN_ZIP64) return plain;
    if (this.#left.length < 8) return undefined;
    const value = whole(this.#left.readBigUInt64LE(0));
    this.#left = this.#left.subarray(8);
    return value;
  }
}

async function contentOffset(
  handle: FileHandle,
  name: string,
  header: number,
  limit: number,
  refuse: Refuse,
): Promise<number> {
  const bytes = Buffer.byteLength(name);
  if (header + LOCAL_HEADER_BYTES + bytes > limit) refuse(`has the entry "${name}" outside the file`);
  const local = await readExactly(handle, header, LOCAL_HEADER_BYTES + bytes, refuse);
  const isSame =
    local.toString('latin1', 0, 4) === 'PK\x03\x04' &&
    local.readUInt16LE(26) === bytes &&
    local.toString('utf8', LOCAL_HEADER_BYTES) === name;
  if (!isSame) refuse(`has no entry "${name}" where its directory says`);
  return header + LOCAL_HEADER_BYTES + bytes + local.readUInt16LE(28);
}

/** Nothing is ever unpacked, but a name that would lead elsewhere is no checkpoint's. */
function assertName(name: string, refuse: Refuse): void {
  const parts = name.split('/');
  const isPlain = parts.every((part) => part !== '' && part !== '.' && part !== '..');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a name with control characters is what is looked for
  if (!isPlain || /[\\:\u0000-\u001f\ufffd]/.test(name)) {
    refuse(`has an entry called ${JSON.stringify(name)}, which is no plain relative path`);
  }
}

/** Beyond 2^53 a number is no place in a file: it fails every check of bounds. */
function whole(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

export async function readExactly(handle: FileHandle, offset: number, length: number, refuse: Refuse): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await handle.read(bytes, 0, length, offset);
  if (bytesRead !== length) refuse(`ends at byte ${offset + bytesRead}, ${length - bytesRead} bytes too early`);
  return bytes;
}
