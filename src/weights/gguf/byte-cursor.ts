import type { FileHandle } from 'node:fs/promises';

/** Read at once: a header of some megabytes takes a few reads. */
const CHUNK_BYTES = 1024 * 1024;

/** Reads little-endian values one after the other from the start of a file, never past its end or a limit. */
export class ByteCursor {
  readonly #handle: FileHandle;
  readonly #fileBytes: number;
  readonly #maxBytes: number;
  readonly #refuse: (problem: string) => never;
  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;
  #chunkStart = 0;

  /** @param refuse takes the rest of a sentence that begins with the file's path */
  constructor(handle: FileHandle, fileBytes: number, maxBytes: number, refuse: (problem: string) => never) {
    this.#handle = handle;
    this.#fileBytes = fileBytes;
    this.#maxBytes = maxBytes;
    this.#refuse = refuse;
  }

  /** Offset from the start of the file. */
  get position(): number {
    return this.#chunkStart + this.#at;
  }

  /** The next bytes; they are good until the next call. */
  async take(count: number): Promise<Buffer> {
    if (this.#at + count > this.#chunk.length) await this.#fill(count);
    this.#at += count;
    return this.#chunk.subarray(this.#at - count, this.#at);
  }

  async uint32(): Promise<number> {
    return (await this.take(4)).readUInt32LE();
  }

  /** A count or an offset: none of a real file is beyond 2^53. */
  async uint64(): Promise<number> {
    const value = (await this.take(8)).readBigUInt64LE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.#refuse(`has a count of ${value} in its header; it is corrupt`);
    return Number(value);
  }

  /** A length, then that many bytes of UTF-8. */
  async string(maxBytes: number): Promise<string> {
    const length = await this.uint64();
    if (length > maxBytes) this.#refuse(`has a string of ${length} bytes in its header, the limit is ${maxBytes}`);
    return (await this.take(length)).toString('utf8');
  }

  /** The same without waiting; undefined, and nothing taken, where it is not in memory yet or not as it must be. */
  nextString(maxBytes: number): string | undefined {
    if (this.#at + 8 > this.#chunk.length || this.#chunk.readUInt32LE(this.#at + 4) !== 0) return undefined;
    const length = this.#chunk.readUInt32LE(this.#at);
    const end = this.#at + 8 + length;
    if (length > maxBytes || end > this.#chunk.length) return undefined;
    const text = this.#chunk.toString('utf8', this.#at + 8, end);
    this.#at = end;
    return text;
  }

  async #fill(count: number): Promise<void> {
    const start = this.position;
    if (start + count > this.#fileBytes) {
      this.#refuse(`ends inside its header (at byte ${this.#fileBytes}); download it again`);
    }
    if (start + count > this.#maxBytes) this.#refuse(`has a header of more than ${this.#maxBytes} bytes, the limit`);
    const chunk = Buffer.alloc(Math.min(Math.max(count, CHUNK_BYTES), this.#fileBytes - start));
    let filled = 0;
    while (filled < chunk.length) {
      const { bytesRead } = await this.#handle.read(chunk, filled, chunk.length - filled, start + filled);
      if (bytesRead === 0) this.#refuse('became shorter while it was read');
      filled += bytesRead;
    }
    this.#chunk = chunk;
    this.#chunkStart = start;
    this.#at = 0;
  }
}
