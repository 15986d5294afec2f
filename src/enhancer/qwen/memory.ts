import { stat } from 'node:fs/promises';
import type { QwenSource } from '../enhancer.js';
import { MAX_PROMPT_TOKENS } from '../prompt-tokens.js';
import { MAX_NEW_TOKENS } from '../template.js';
import { readQwenConfig } from './config.js';
import { matrixTypes } from './convert.js';
import { readQwenGguf } from './qwen-gguf.js';
import { weightBytes } from './weights.js';

/**
 * Memory of the process and of llama.cpp's buffers, in bytes. Logits of 512 tokens over a vocabulary of 152,064 alone
 * take 311 MB.
 */
const OVERHEAD_BYTES = 512 * 2 ** 20;
/** Room for a template, in tokens: the real length is known once the tokenizer is loaded. */
const TEMPLATE_TOKENS = 512;
/** A key and a value in binary16. */
const CACHE_BYTES = 4;

export interface QwenMemory {
  /** Size of the weights: with Q8_0 34 bytes for 32 of them. */
  readonly weightBytes: number;
  /** Keys and values of every sequence, and llama.cpp's buffers. */
  readonly runBytes: number;
}

/**
 * Estimates the memory of a model before it was measured.
 * @throws InferenceError if the model is no Qwen2
 */
export async function estimateMemory(source: QwenSource): Promise<number> {
  const { weightBytes, runBytes } = await planQwenMemory(source);
  return weightBytes + runBytes;
}

/** The same by part. */
export async function planQwenMemory({
  path,
  type,
  parallel,
}: Pick<QwenSource, 'path' | 'type' | 'parallel'>): Promise<QwenMemory> {
  const tokens = (TEMPLATE_TOKENS + MAX_PROMPT_TOKENS + MAX_NEW_TOKENS) * parallel;
  const entry = await stat(path).catch(() => undefined);
  if (entry?.isDirectory()) {
    const config = await readQwenConfig(path);
    const { blockCount, embeddingLength, headCount, headCountKv } = config;
    const cache = tokens * blockCount * (embeddingLength / headCount) * headCountKv * CACHE_BYTES;
    return { weightBytes: weightBytes(config, matrixTypes[type]), runBytes: cache + OVERHEAD_BYTES };
  }
  const { metadata, fileBytes } = await readQwenGguf(path);
  const number = (key: string) => Number(metadata.get(`qwen2.${key}`) ?? 0);
  const heads = number('attention.head_count');
  const width = (number('embedding_length') / heads) * (number('attention.head_count_kv') || heads);
  const cache = tokens * number('block_count') * width * CACHE_BYTES;
  return { weightBytes: fileBytes, runBytes: cache + OVERHEAD_BYTES };
}
