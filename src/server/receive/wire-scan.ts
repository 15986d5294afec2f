/** Entries of the repeated fields of a `GenerateRequest`. */
export interface RepeatedCounts {
  references: number;
  loras: number;
  labels: number;
}

export interface WireScan {
  /** Fields of the request and of its messages, as far as they were counted: each one becomes a value, and a message an object. */
  readonly fields: number;
  readonly counts: Readonly<RepeatedCounts>;
}

/** Field numbers of `GenerateRequest` (proto/darkroom/v1/inference_service.proto) whose values are messages. */
const REPEATED: Readonly<Record<number, keyof RepeatedCounts>> = { 17: 'references', 18: 'loras', 20: 'labels' };
const GUIDANCE_INTERVAL = 24;

/**
 * Counts the fields of a `GenerateRequest` without decoding it, in linear time and constant memory. A request of 31 MB that
 * consists of tiny messages takes gigabytes and a minute to decode; one with a large image takes milliseconds.
 * https://protobuf.dev/programming-guides/encoding/
 *
 * @param maxFields the scan ends at the first field beyond it: 31 MB of fields take seconds to count
 * @returns undefined where the bytes are no protobuf message
 */
export function scanGenerateRequest(bytes: Uint8Array, maxFields: number): WireScan | undefined {
  const counts = { references: 0, loras: 0, labels: 0 };
  let fields = 0;
  const count = () => {
    fields += 1;
    return fields <= maxFields;
  };
  const isValid = walk(bytes, 0, bytes.length, (field, start, end) => {
    if (!count()) return false;
    const counted = REPEATED[field];
    if (counted !== undefined) counts[counted] += 1;
    // What is wrong inside of a message is left to the decoder.
    if (start < end && (counted !== undefined || field === GUIDANCE_INTERVAL)) walk(bytes, start, end, count);
    return fields <= maxFields;
  });
  return isValid ? { fields, counts } : undefined;
}

/**
 * Calls back for every field until it is told to end; `start` and `end` are the range of a length-delimited value, and equal for other
 * values.
 * @returns false where the bytes are cut or of an unknown wire type
 */
function walk(
  bytes: Uint8Array,
  start: number,
  end: number,
  onField: (field: number, start: number, end: number) => boolean,
): boolean {
  let at = start;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70 && at < end; shift += 7) {
      const byte = bytes[at] ?? 0;
      at += 1;
      // Beyond 2^53 the value is no length or tag that could fit: only its end matters.
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return Number.NaN;
  };
  while (at < end) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        if (Number.isNaN(varint())) return false;
        break;
      case 1:
        at += 8;
        break;
      case 2: {
        const length = varint();
        if (!(length <= end - at)) return false;
        at += length;
        if (!onField(field, at - length, at)) return true;
        continue;
      }
      case 5:
        at += 4;
        break;
      default:
        return false;
    }
    if (!onField(field, at, at)) return true;
  }
  return at === end;
}
