import type { FloatType } from '../weights/safetensors.js';
import type { SyntheticEmbeddingSize } from './sizes.js';
import { writeHashSafetensors } from './write-safetensors.js';

/** Widths of the two text encoders of the models in sdxl.ts. */
const WIDTHS: Readonly<Record<SyntheticEmbeddingSize, readonly [number, number]>> = {
  'sdxl-embedding-tiny': [32, 48],
  'sdxl-embedding': [768, 1280],
};
const VECTORS = 4;

/** Writes an embedding of four made-up vectors for each text encoder of an SDXL. */
export function writeSyntheticEmbedding(
  path: string,
  size: SyntheticEmbeddingSize,
  dtype: FloatType = 'F16',
): Promise<void> {
  const [first, second] = WIDTHS[size];
  const tensors = [
    ['clip_l', [VECTORS, first]],
    ['clip_g', [VECTORS, second]],
  ] as const;
  return writeHashSafetensors(path, { dtype, hashPrefix: 'embedding.', tensors });
}
