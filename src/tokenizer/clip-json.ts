/**
 * CLIP's `tokenizer.json`, the only vocabulary that transformers 5 saves; its special tokens are in `tokenizer_config.json`.
 * https://github.com/huggingface/transformers/blob/048bd927cf5b0ea0614cb56aff7f97f1941a6775/MIGRATION_GUIDE_V5.md
 */
import { z } from 'zod';
import { readJsonFile } from '../std/json-file.js';
import { MAX_ADDED_TOKENS, MAX_TOKENS, vocabularySchema } from './vocabulary-schema.js';

/** CLIP's has 2 to 4 MB. */
const FILE = {
  maxBytes: 50_000_000,
  missing: 'a CLIP tokenizer folder has vocab.json and merges.txt, or tokenizer.json',
};
const MAX_STEPS = 32;

/** Words as CLIP cuts them; the special tokens before them change nothing, because they are found first. */
const WORDS =
  /^(<\\\|startoftext\\\|>\|<\\\|endoftext\\\|>\|)?'s\|'t\|'re\|'ve\|'m\|'ll\|'d\|\[\\p\{L\}\]\+\|\[\\p\{N\}\]\|\[\^\\s\\p\{L\}\\p\{N\}\]\+$/;

const splitSchema = z.object({
  type: z.literal('Split'),
  pattern: z.object({ Regex: z.string().regex(WORDS, 'is not how CLIP cuts words') }),
});
const byteLevelSchema = z.object({ type: z.literal('ByteLevel'), add_prefix_space: z.literal(false) });

const clipJsonSchema = z.object({
  added_tokens: z
    .array(
      z.object({
        id: z.int().min(0),
        content: z.string().min(1).max(256),
        normalized: z.boolean().default(false),
      }),
    )
    .max(MAX_ADDED_TOKENS)
    .default([]),
  normalizer: z.object({
    type: z.literal('Sequence'),
    normalizers: z
      .array(z.object({ type: z.enum(['NFC', 'Replace', 'Lowercase'], 'is not how CLIP normalises') }))
      .max(MAX_STEPS),
  }),
  pre_tokenizer: z.object({
    type: z.literal('Sequence'),
    pretokenizers: z.tuple([splitSchema, byteLevelSchema]),
  }),
  truncation: z.object({ max_length: z.int().min(2).max(10_000) }).nullish(),
  post_processor: z
    .object({
      cls: z.tuple([z.string(), z.int()]).optional(),
      sep: z.tuple([z.string(), z.int()]).optional(),
    })
    .nullish(),
  model: z.object({
    type: z.literal('BPE', 'is of another kind than BPE'),
    end_of_word_suffix: z.literal('</w>', 'does not mark the end of words'),
    unk_token: z.string().nullish(),
    vocab: vocabularySchema(),
    merges: z.custom<readonly (string | readonly [string, string])[]>(isMerges, 'must be a list of pairs of tokens'),
  }),
});

export interface ClipJson {
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Pairs "a b", the first merged first. */
  readonly merges: readonly string[];
  /** Tokens that are found in a text before it is cut into words. */
  readonly added: readonly { readonly content: string; readonly normalized: boolean }[];
  /** Special tokens by their role, where the file names them. */
  readonly named: Readonly<Partial<Record<'bos_token' | 'eos_token' | 'pad_token' | 'unk_token', string>>>;
  readonly maxLength: number | undefined;
}

/** A pair is written as one text or as two. */
function isMerges(value: unknown): boolean {
  if (!Array.isArray(value) || value.length > MAX_TOKENS) return false;
  return value.every(
    (merge: unknown) =>
      typeof merge === 'string' ||
      (Array.isArray(merge) && merge.length === 2 && merge.every((part) => typeof part === 'string')),
  );
}

/** @throws InferenceError CHECKPOINT_INVALID that names the file and every field that is not CLIP's */
export async function readClipJson(path: string): Promise<ClipJson> {
  const {
    added_tokens: added,
    model,
    post_processor: around,
    truncation,
  } = await readJsonFile(path, clipJsonSchema, FILE);
  const vocabulary = new Map(Object.entries(model.vocab));
  for (const { content, id } of added) vocabulary.set(content, id);
  const [begin, end] = [around?.cls?.[0], around?.sep?.[0]];
  // OpenCLIP's tokenizer pads with a token that is none of the others.
  const others = added.filter(({ content }) => ![begin, end, model.unk_token].includes(content));
  const [pad] = others.length === 1 ? others : [];
  return {
    vocabulary,
    merges: model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' '))),
    added,
    named: {
      ...(begin !== undefined && { bos_token: begin }),
      ...(end !== undefined && { eos_token: end }),
      ...(pad !== undefined && { pad_token: pad.content }),
      ...(model.unk_token != null && { unk_token: model.unk_token }),
    },
    maxLength: truncation?.max_length,
  };
}
