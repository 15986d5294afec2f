import { cp, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readQwenConfig } from '../enhancer/qwen/config.js';
import { wantedTensors } from '../enhancer/qwen/weights.js';
import { makeFolder } from '../std/make-folder.js';
import type { FloatType } from '../weights/safetensors.js';
import { findAsset } from './assets.js';
import type { SyntheticQwenSize } from './sizes.js';
import { writeHashSafetensors } from './write-safetensors.js';

/** The fields in which a released model is larger than the tiny one. */
const changes: Readonly<Record<SyntheticQwenSize, object>> = {
  'qwen-tiny': {},
  // https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/060db6499f32faf8b98477b0a26969ef7d8b9987/config.json
  'qwen-0.5b': {
    hidden_size: 896,
    intermediate_size: 4864,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    tie_word_embeddings: true,
    vocab_size: 151_936,
  },
  // https://huggingface.co/Qwen/Qwen2.5-7B/blob/d149729398750b98c0af14eb82c78cfe92750796/config.json
  'qwen-7b': {
    hidden_size: 3584,
    intermediate_size: 18_944,
    num_hidden_layers: 28,
    num_attention_heads: 28,
    num_key_value_heads: 4,
    vocab_size: 152_064,
  },
};

/**
 * Makes a Qwen2 of hash weights as transformers saves one: the real architecture, file layout and names; what it writes is
 * noise. Does nothing where one is already whole.
 *
 * @param isHollow its file has a header and a size, but no weights
 * @returns the folder
 */
export async function writeSyntheticQwen(
  folder: string,
  size: SyntheticQwenSize,
  dtype: FloatType = 'BF16',
  isHollow = false,
): Promise<string> {
  const weights = join(folder, 'model.safetensors');
  if ((await stat(weights).catch(() => undefined)) !== undefined) return folder;
  await makeFolder(folder);
  await cp(await findAsset('tiny-qwen'), folder, { recursive: true });
  const path = join(folder, 'config.json');
  const config = JSON.parse(await readFile(path, 'utf8')) as object;
  await writeFile(path, JSON.stringify({ ...config, layer_types: undefined, ...changes[size] }, null, 2));
  const known = await readQwenConfig(folder);
  await fillVocabulary(join(folder, 'tokenizer.json'), known.vocabSize);
  const tensors = wantedTensors(known).map(({ key, shape }) => [key, shape] as const);
  await writeHashSafetensors(weights, { dtype, hashPrefix: 'a:qwen.', tensors, isHollow });
  return folder;
}

/** Tokens without text would decode to empty texts: every id beyond the tiny vocabulary's is a word that spells its number. */
async function fillVocabulary(path: string, size: number): Promise<void> {
  const tokenizer = JSON.parse(await readFile(path, 'utf8')) as TokenizerFile;
  const { vocab } = tokenizer.model;
  const added = tokenizer.added_tokens.map(({ id }) => id);
  for (let id = Math.max(...Object.values(vocab), ...added) + 1; id < size; id += 1) vocab[`Ġ${id}`] = id;
  await writeFile(path, JSON.stringify(tokenizer));
}

interface TokenizerFile {
  readonly added_tokens: readonly { readonly id: number }[];
  readonly model: { readonly vocab: Record<string, number> };
}
