import { createGunzip, createInflate } from 'node:zlib';
import { InferenceError } from '../../errors.js';
import { type RequestBounds, refusalOf, tooLarge } from './request-bounds.js';
import { WireScan } from './wire-scan.js';

/** Values of the header `grpc-encoding`. */
const INFLATERS = { gzip: createGunzip, deflate: createInflate };

export type Encoding = keyof typeof INFLATERS;

export function isEncoding(name: string): name is Encoding {
  return Object.hasOwn(INFLATERS, name);
}

/**
 * Inflates a message and checks it while it grows: 32 kB can be 31 MB of fields.
 * @throws InferenceError for a message outside of its bounds, and for one that is not of the encoding
 */
export async function inflate(compressed: Uint8Array, encoding: Encoding, bounds: RequestBounds): Promise<Buffer> {
  const scan = new WireScan(bounds.shape, bounds.maxFields);
  const parts: Buffer[] = [];
  let bytes = 0;
  const inflater = INFLATERS[encoding]();
  inflater.end(compressed);
  const all: AsyncIterable<Buffer> = inflater;
  try {
    for await (const part of all) {
      bytes += part.length;
      if (bytes > bounds.maxBytes) throw tooLarge(bytes, bounds.maxBytes);
      const problem = scan.write(part);
      if (problem !== undefined) throw refusalOf(problem, bounds);
      parts.push(part);
    }
  } catch (error) {
    if (error instanceof InferenceError) throw error;
    throw new InferenceError('INVALID_REQUEST', `the request is not valid ${encoding}, as its grpc-encoding says`);
  }
  return Buffer.concat(parts, bytes);
}
