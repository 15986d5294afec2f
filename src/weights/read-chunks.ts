import { open } from 'node:fs/promises';
import { InferenceError } from '../errors.js';
import type { TensorRecord } from './safetensors.js';

/**
 * Reads a stored tensor piece by piece: the embedding of a 7B model alone would take 1 GB.
 * @param chunkBytes of each piece but the last
 * @throws InferenceError CHECKPOINT_INVALID for a file that became shorter
 */
export async function* readChunks(
  { file, offset, length }: Pick<TensorRecord, 'file' | 'offset' | 'length'>,
  chunkBytes: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const handle = await open(file, 'r');
  try {
    for (let start = 0; start < length; start += chunkBytes) {
      const bytes = new Uint8Array(Math.min(chunkBytes, length - start));
      let filled = 0;
      while (filled < bytes.length) {
        const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, offset + start + filled);
        if (bytesRead === 0) throw new InferenceError('CHECKPOINT_INVALID', `${file} became shorter while it was read`);
        filled += bytesRead;
      }
      yield bytes;
    }
  } finally {
    await handle.close();
  }
}
