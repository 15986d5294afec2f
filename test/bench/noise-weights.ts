import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { bytesFromFloats } from '../../src/weights/half-floats.js';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { seeded } from '../support/seeded.js';

const BLOCK_ELEMENTS = 2 ** 22;
/** Keeps the size of what a layer of 1280 channels computes. */
const LARGEST_WEIGHT = 0.05;

/**
 * Fills the safetensors files below a folder, which have sizes but no content, with one block of noise over and over: written as fast as the disk
 * takes it, and as much work for a card as real weights are. Zeros are less.
 */
export async function fillWithNoise(folder: string): Promise<void> {
  const random = seeded(1);
  const floats = Float32Array.from(
    { length: BLOCK_ELEMENTS },
    () => (random.below(2 ** 16) / 2 ** 15 - 1) * LARGEST_WEIGHT,
  );
  const names = await readdir(folder, { recursive: true });
  for (const name of names.filter((file) => file.endsWith('.safetensors'))) {
    const path = join(folder, name);
    const { tensors } = await readSafetensors(path);
    const records = [...tensors.values()];
    const dtype = records[0]?.dtype;
    if (dtype !== 'F16' && dtype !== 'BF16' && dtype !== 'F32') throw new Error(`${path} has tensors of type ${dtype}`);
    const block = bytesFromFloats(dtype, floats);
    let at = Math.min(...records.map(({ offset }) => offset));
    const end = Math.max(...records.map(({ offset, length }) => offset + length));
    const file = await open(path, 'r+');
    try {
      while (at < end) at += (await file.write(block, 0, Math.min(block.length, end - at), at)).bytesWritten;
    } finally {
      await file.close();
    }
  }
}
