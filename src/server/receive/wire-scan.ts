import type { MessageShape, NumberList } from './message-shapes.js';

export type ScanProblem = 'malformed' | 'too many fields';

/** A varint has at most 10 bytes. */
const MAX_VARINT_BITS = 70;
/** Decoders take the low 32 bits of a larger tag or length: what they would read then is another message than the one counted here. */
const MAX_UINT32 = 2 ** 32 - 1;

/** What the next bytes are: a varint is a field's tag, a value, or the length of a value. */
type Next = 'tag' | 'value' | 'length';

/** A message, or a packed list of varints, around the current position. */
interface Level {
  readonly shape: MessageShape | NumberList;
  /** Position of its end, in bytes from the begin of the request. */
  readonly end: number;
}

/**
 * Counts the fields of a protobuf message and of the messages in it without decoding it, while its bytes arrive, in linear time and
 * constant memory. Each number of a packed list counts as a field. A request of 31 MB that consists of tiny messages takes gigabytes and a minute to decode; one with a large
 * image takes milliseconds.
 * https://protobuf.dev/programming-guides/encoding/
 */
export class WireScan {
  readonly #maxFields: number;
  readonly #levels: Level[];
  #at = 0;
  /** Bytes before this position are the value of a field without fields. */
  #skipTo = 0;
  #next: Next = 'tag';
  #varint = 0;
  #bits = 0;
  #field = 0;
  #fields = 0;

  /**
   * @param length bytes of the message; without it the message ends with the last bytes
   * @param maxFields fields of the message, those of its messages included
   */
  constructor(shape: MessageShape, maxFields: number, length = Number.POSITIVE_INFINITY) {
    this.#maxFields = maxFields;
    this.#levels = [{ shape, end: length }];
  }

  /** Reads on. @returns the first problem; what was written after it is not looked at */
  write(bytes: Uint8Array): ScanProblem | undefined {
    const start = this.#at;
    const end = start + bytes.length;
    while (true) {
      if (this.#skipTo > this.#at) this.#at = Math.min(this.#skipTo, end);
      if (this.#next === 'tag') this.#leaveEnded();
      if (this.#at >= end) return undefined;
      const byte = bytes[this.#at - start] ?? 0;
      this.#at += 1;
      // Beyond 2^53 the value is no tag and no length: only its end matters.
      this.#varint += (byte & 0x7f) * 2 ** this.#bits;
      this.#bits += 7;
      if (byte >= 0x80) {
        if (this.#bits >= MAX_VARINT_BITS) return 'malformed';
        continue;
      }
      const problem = this.#onVarint(this.#varint);
      if (problem !== undefined) return problem;
      this.#varint = 0;
      this.#bits = 0;
    }
  }

  #onVarint(value: number): ScanProblem | undefined {
    if (this.#next === 'value') {
      this.#next = 'tag';
      return undefined;
    }
    if (this.#next === 'tag' && 'bytes' in this.#level.shape) return this.#count(1);
    if (value > MAX_UINT32) return 'malformed';
    return this.#next === 'tag' ? this.#onTag(value) : this.#onLength(value);
  }

  #onTag(tag: number): ScanProblem | undefined {
    const problem = this.#count(1);
    if (problem !== undefined) return problem;
    this.#field = Math.floor(tag / 8);
    if (this.#field === 0) return 'malformed';
    switch (tag % 8) {
      case 0:
        this.#next = 'value';
        return undefined;
      case 1:
        return this.#skip(8);
      case 2:
        this.#next = 'length';
        return undefined;
      case 5:
        return this.#skip(4);
      default:
        return 'malformed';
    }
  }

  #onLength(length: number): ScanProblem | undefined {
    this.#next = 'tag';
    const around = this.#level.shape;
    const shape = 'bytes' in around ? undefined : around.get(this.#field);
    if (shape === undefined) return this.#skip(length);
    if ('bytes' in shape && shape.bytes !== undefined) return this.#count(length / shape.bytes) ?? this.#skip(length);
    const end = this.#at + length;
    if (end > this.#level.end) return 'malformed';
    this.#levels.push({ shape, end });
    return undefined;
  }

  #count(fields: number): ScanProblem | undefined {
    this.#fields += fields;
    return this.#fields > this.#maxFields ? 'too many fields' : undefined;
  }

  #skip(length: number): ScanProblem | undefined {
    this.#skipTo = this.#at + length;
    return this.#skipTo > this.#level.end ? 'malformed' : undefined;
  }

  #leaveEnded(): void {
    while (this.#levels.length > 1 && this.#at >= this.#level.end) this.#levels.pop();
  }

  get #level(): Level {
    return this.#levels.at(-1) as Level;
  }
}
