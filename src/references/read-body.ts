import type { Readable } from 'node:stream';

/** First allocation if no length is declared: most previews fit. */
const INITIAL_BYTES = 64 * 1024;

/**
 * Reads a stream to its end into one growing buffer. A list of chunks would not do: 20 MiB that are sent byte by byte would be gigabytes
 * of objects.
 *
 * @param declaredBytes length that the sender declares. Only the first allocation depends on it
 * @returns undefined if there are more than `maxBytes`. The stream is destroyed then
 */
export async function readBody(
  stream: Readable,
  { maxBytes, declaredBytes = INITIAL_BYTES }: { maxBytes: number; declaredBytes?: number | undefined },
): Promise<Uint8Array | undefined> {
  let body = Buffer.alloc(Math.min(declaredBytes, maxBytes));
  let length = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    const end = length + chunk.length;
    if (end > maxBytes) return undefined;
    if (end > body.length) {
      const larger = Buffer.alloc(Math.min(Math.max(end, 2 * body.length), maxBytes));
      body.copy(larger, 0, 0, length);
      body = larger;
    }
    body.set(chunk, length);
    length = end;
  }
  return body.subarray(0, length);
}
