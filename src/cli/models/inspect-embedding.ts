import { InferenceError } from '../../errors.js';
import { embeddingEndings } from '../../pipelines/embeddings/embedding-file.js';
import { type EmbeddingSummary, readEmbeddingSummary } from '../../pipelines/embeddings/embedding-summary.js';
import { counted } from '../../std/counted.js';

export interface EmbeddingInspection extends EmbeddingSummary {
  readonly kind: 'embedding';
}

/** Inspects an embedding file; undefined for anything else. @throws InferenceError if the embedding cannot be used */
export async function inspectEmbedding(path: string): Promise<EmbeddingInspection | undefined> {
  if (!embeddingEndings.some((ending) => path.toLowerCase().endsWith(ending))) return undefined;
  try {
    return { kind: 'embedding', ...(await readEmbeddingSummary(path)) };
  } catch (error) {
    if (error instanceof InferenceError && error.reason === 'MODEL_UNSUPPORTED') return undefined;
    throw error;
  }
}

const FORMATS: Readonly<Record<EmbeddingSummary['format'], string>> = {
  clip: 'as clip_l and clip_g',
  a1111: "in A1111's format",
  diffusers: "in diffusers' format",
};

export function describeEmbedding(path: string, { base, format, counts, sizeBytes }: EmbeddingInspection): string {
  const model = base === 'unknown' ? 'a model of unknown kind' : base;
  return [
    `${path} is an embedding (textual inversion) for ${model}, ${FORMATS[format]}.`,
    `  ${counted(counts[0] ?? 0, 'vector')} of the first text encoder, ${counts[1]} of the second, ${(sizeBytes / 1e3).toFixed(1)} kB`,
    '',
  ].join('\n');
}
