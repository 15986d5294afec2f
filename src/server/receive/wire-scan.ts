/** Field numbers of `GenerateRequest` and `Reference` that the scan knows (proto/darkroom/v1). */
const REFERENCES = 17;
const LORAS = 18;
const LABELS = 20;
const IMAGE = 1;

/** Entries of the repeated fields of a `GenerateRequest`. */
export interface RepeatedCounts {
  references: number;
  loras: number;
  labels: number;
}

export interface WireScan {
  /** Bytes that are not part of an image: what decoding turns into objects and strings. */
  readonly smallBytes: number;
  readonly counts: Readonly<RepeatedCounts>;
}

const COUNTED: Readonly<Record<number, keyof RepeatedCounts>> = {
  [REFERENCES]: 'references',
  [LORAS]: 'loras',
  [LABELS]: 'labels',
};

/**
 * Walks the wire format of a `GenerateRequest` without decoding it, in linear time and constant memory. Decoding a request of
 * 31 MB that consists of tiny messages takes gigabytes and a minute, so the bytes outside of images are bounded first.
 * https://protobuf.dev/programming-guides/encoding/
 *
 * @returns undefined where the bytes are no protobuf message
 */
export function scanGenerateRequest(bytes: Uint8Array): WireScan | undefined {
  const counts = { references: 0, loras: 0, labels: 0 };
  let imageBytes = 0;
  const isValid = walk(bytes, 0, bytes.length, (field, start, end) => {
    const counted = COUNTED[field];
    if (counted !== undefined) counts[counted] += 1;
    if (field !== REFERENCES) return;
    // Only the last image of a reference counts for its meaning; further ones are small bytes, so that they are bounded too.
    let hasImage = false;
    walk(bytes, start, end, (inner, from, to) => {
      if (inner !== IMAGE || hasImage) return;
      hasImage = true;
      imageBytes += to - from;
    });
  });
  return isValid ? { smallBytes: bytes.length - imageBytes, counts } : undefined;
}

/** Calls back for every length-delimited field. @returns false where the bytes are cut or of an unknown wire type */
function walk(
  bytes: Uint8Array,
  start: number,
  end: number,
  onDelimited: (field: number, start: number, end: number) => void,
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
        onDelimited(Math.floor(tag / 8), at, at + length);
        at += length;
        break;
      }
      case 5:
        at += 4;
        break;
      default:
        return false;
    }
  }
  return at === end;
}
