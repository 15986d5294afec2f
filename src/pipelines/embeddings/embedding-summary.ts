import type { TensorRecord } from '../../weights/safetensors.js';
import {
  CLIP_G_WIDTH,
  type EmbeddingBase,
  type EmbeddingFormat,
  readEmbeddingFile,
  vectorsOf,
  widthOf,
} from './embedding-file.js';

/** Summary of an embedding file as plain data. */
export interface EmbeddingSummary {
  readonly base: EmbeddingBase;
  readonly format: EmbeddingFormat;
  /** Vectors of SDXL's first and second encoder: tokens that its name takes in a prompt. 0: the encoder reads the name as text. */
  readonly counts: readonly [number, number];
  readonly sizeBytes: number;
}

/** @throws InferenceError of `readEmbeddingFile` */
export async function readEmbeddingSummary(path: string): Promise<EmbeddingSummary> {
  const { base, format, encoders, unnamed, sizeBytes } = await readEmbeddingFile(path);
  const count = (record: TensorRecord | undefined) => (record === undefined ? 0 : vectorsOf(record));
  const [narrow, wide] = [...unnamed].sort((a, b) => widthOf(a) - widthOf(b));
  // A lone table is the first encoder's, unless it is as wide as the second.
  const lone = narrow && wide === undefined && widthOf(narrow) === CLIP_G_WIDTH ? [undefined, narrow] : [narrow, wide];
  const counts = [count(encoders.get('clip_l') ?? lone[0]), count(encoders.get('clip_g') ?? lone[1])] as const;
  return { base, format, counts, sizeBytes };
}
