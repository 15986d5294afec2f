import { PUBLISHED_CLIP_TOKENS } from '../../src/tokenizer/published-clip.js';
import type { Tensors } from './tensor-file.js';

/** The same tensors with an embedding for each entry of the published vocabulary: the rows repeat. */
export function publishedRows(tensors: Tensors): Tensors {
  for (const [name, { dtype, shape, bytes }] of tensors) {
    if (!/token_embedding\.weight$/.test(name)) continue;
    const [rows = 0, width = 0] = shape;
    const parts = Array<Buffer>(Math.ceil(PUBLISHED_CLIP_TOKENS / rows)).fill(bytes);
    const length = (bytes.length / rows) * PUBLISHED_CLIP_TOKENS;
    tensors.set(name, { dtype, shape: [PUBLISHED_CLIP_TOKENS, width], bytes: Buffer.concat(parts, length) });
  }
  return tensors;
}
