import { InferenceError } from '../../errors.js';
import type { GgufHeader } from '../../weights/gguf/gguf-header.js';
import { readSplitGgufHeader } from '../../weights/gguf/split-gguf.js';

/** Keys that llama.cpp needs to load a qwen2. */
const REQUIRED = [
  'qwen2.block_count',
  'qwen2.context_length',
  'qwen2.embedding_length',
  'qwen2.attention.head_count',
  'tokenizer.ggml.tokens',
] as const;

/**
 * Reads the header of a GGUF file, or of a split one by any of its parts, and checks that it is a Qwen2 of any quantisation.
 * @throws InferenceError MODEL_UNSUPPORTED for another architecture, CHECKPOINT_INVALID for an incomplete file
 */
export async function readQwenGguf(path: string): Promise<GgufHeader> {
  const header = await readSplitGgufHeader(path);
  const architecture = header.metadata.get('general.architecture');
  if (architecture !== 'qwen2') {
    const shown = JSON.stringify(architecture ?? null).slice(0, 80);
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is of architecture ${shown}; give a Qwen2 or Qwen2.5 ("qwen2")`,
    );
  }
  const missing: string[] = REQUIRED.filter((key) => !header.metadata.has(key));
  if (!header.tensors.has('token_embd.weight')) missing.push('token_embd.weight');
  if (missing.length > 0) {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} has no ${missing.join(', ')}; convert the model again`);
  }
  return header;
}
