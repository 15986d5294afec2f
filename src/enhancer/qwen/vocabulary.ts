import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../../errors.js';
import { readJsonFile, readTextFile } from '../../std/json-file.js';
import { vocabularySchema } from '../../tokenizer/vocabulary-schema.js';

/** Largest file size: Qwen2's tokenizer.json has 7 MB, its vocab.json 3 MB. */
const TOKENIZER = { maxBytes: 100_000_000, missing: 'the folder needs tokenizer.json, or vocab.json and merges.txt' };
const SETTINGS = { maxBytes: 10_000_000, missing: 'it names the special tokens' };
/** Longest chat template: published ones have about 10 KB. */
const MAX_TEMPLATE_BYTES = 1_000_000;
/** Largest counts: Qwen2 has 151,643 tokens, 151,387 merges and about 20 added tokens. */
const MAX_TOKENS = 500_000;
const MAX_ADDED_TOKENS = 2_000;

/**
 * The pattern by which Qwen2 splits words; llama.cpp's "qwen2" has the same.
 * https://huggingface.co/Qwen/Qwen2.5-7B/blob/main/tokenizer.json
 */
const WORDS =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const vocabSchema = vocabularySchema(MAX_TOKENS);
const addedSchema = z.object({ id: z.int().min(0).max(MAX_TOKENS), content: z.string().min(1), special: z.boolean() });
type AddedToken = z.infer<typeof addedSchema>;

const stepSchema = z.object({
  type: z.string(),
  pattern: z.object({ Regex: z.string() }).optional(),
});
const tokenizerSchema = z.object({
  added_tokens: z.array(addedSchema).max(MAX_ADDED_TOKENS).default([]),
  pre_tokenizer: z.object({ type: z.string(), pretokenizers: z.array(stepSchema).max(32).optional() }).nullish(),
  model: z.object({
    type: z.literal('BPE', 'is of another kind than BPE'),
    ignore_merges: z.literal(false, 'is not known').default(false),
    byte_fallback: z.literal(false, 'is not known').default(false),
    vocab: vocabSchema,
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])).max(MAX_TOKENS),
  }),
});

const named = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)]).nullish();
const settingsSchema = z.object({
  added_tokens_decoder: z.record(z.string().regex(/^\d{1,7}$/), addedSchema.omit({ id: true })).optional(),
  additional_special_tokens: z.array(named).max(MAX_ADDED_TOKENS).nullish(),
  bos_token: named,
  eos_token: named,
  pad_token: named,
  unk_token: named,
  add_bos_token: z.boolean().nullish(),
  chat_template: z.union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))]).nullish(),
});
type Settings = z.infer<typeof settingsSchema>;

export type TokenKind = 'normal' | 'control' | 'user-defined' | 'unused';

/** A byte-level BPE vocabulary in which every id has a token. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  /** Kinds of the tokens, by id. */
  readonly kinds: readonly TokenKind[];
  /** "left right", in the order of application. */
  readonly merges: readonly string[];
  /** Special tokens of the tokenizer's settings. */
  readonly specialIds: { readonly bos?: number; readonly eos?: number; readonly pad?: number };
  readonly addBos: boolean;
  readonly chatTemplate?: string;
}

/** Files that a vocabulary may be read from. */
export const vocabularyFiles = [
  'tokenizer.json',
  'vocab.json',
  'merges.txt',
  'added_tokens.json',
  'tokenizer_config.json',
  'chat_template.jinja',
] as const;

/**
 * Reads the tokenizer of a Qwen2 folder.
 * @param size number of the model's tokens. Ids without a token get a placeholder; a token beyond `size` is an error
 * @throws InferenceError CHECKPOINT_INVALID; MODEL_UNSUPPORTED for another way to split words
 */
export async function readVocabulary(folder: string, size: number): Promise<Vocabulary> {
  const settings = await readJsonFile(join(folder, 'tokenizer_config.json'), settingsSchema, {
    ...SETTINGS,
    fallback: {},
  });
  const { vocab, merges, added } = (await exists(join(folder, 'tokenizer.json')))
    ? await readTokenizerJson(join(folder, 'tokenizer.json'))
    : await readVocabAndMerges(folder, settings);
  const tokens: (string | undefined)[] = new Array(size).fill(undefined);
  const kinds: TokenKind[] = new Array(size).fill('unused');
  const put = (token: string, id: number, kind: TokenKind) => {
    if (id >= size)
      invalid(folder, `has token ${JSON.stringify(token)} with id ${id}, config.json's vocab_size is ${size}`);
    if (tokens[id] !== undefined && tokens[id] !== token) {
      invalid(folder, `has two tokens with id ${id}, ${JSON.stringify(tokens[id])} and ${JSON.stringify(token)}`);
    }
    tokens[id] = token;
    kinds[id] = kind;
  };
  for (const [token, id] of Object.entries(vocab)) put(token, id, 'normal');
  // Names in angle brackets are control tokens even if a file does not mark them, as in llama.cpp's conversion.
  for (const { content, id, special } of added) {
    put(content, id, special || /^<\|.*\|>$/.test(content) ? 'control' : 'user-defined');
  }
  const ids = new Map(added.map(({ content, id }) => [content, id]));
  const idOf = (name: 'bos' | 'eos' | 'pad') => {
    const token = settings[`${name}_token`];
    const id = token == null ? undefined : (ids.get(token) ?? (Object.hasOwn(vocab, token) ? vocab[token] : undefined));
    return id === undefined ? {} : { [name]: id };
  };
  const chatTemplate = await templateOf(folder, settings);
  return {
    tokens: tokens.map((token, id) => token ?? `[PAD${id}]`),
    kinds,
    merges,
    specialIds: { ...idOf('bos'), ...idOf('eos'), ...idOf('pad') },
    addBos: settings.add_bos_token ?? false,
    ...(chatTemplate !== undefined && { chatTemplate }),
  };
}

interface Pieces {
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly string[];
  readonly added: readonly AddedToken[];
}

async function readTokenizerJson(path: string): Promise<Pieces> {
  const { model, added_tokens: added, pre_tokenizer: words } = await readJsonFile(path, tokenizerSchema, TOKENIZER);
  const split = words?.pretokenizers?.find(({ type }) => type === 'Split')?.pattern?.Regex;
  if (split !== WORDS) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} does not cut words as Qwen2 does (pre_tokenizer ${JSON.stringify(split ?? words?.type ?? null)})`,
    );
  }
  const merges = model.merges.map((merge) => assertMerge(path, typeof merge === 'string' ? merge : merge.join(' ')));
  return { vocab: model.vocab, merges, added };
}

async function readVocabAndMerges(folder: string, settings: Settings): Promise<Pieces> {
  const vocab = await readJsonFile(join(folder, 'vocab.json'), vocabSchema, TOKENIZER);
  const path = join(folder, 'merges.txt');
  const lines = (await readTextFile(path, TOKENIZER)).split(/\r?\n/);
  const merges = lines
    .filter((line, i) => line !== '' && !(i === 0 && line.startsWith('#version')))
    .map((line) => assertMerge(path, line));
  const loose = await readJsonFile(join(folder, 'added_tokens.json'), vocabSchema, { ...SETTINGS, fallback: {} });
  const added = new Map<string, AddedToken>();
  for (const [content, id] of Object.entries(loose)) added.set(content, { content, id, special: false });
  for (const [id, { content, special }] of Object.entries(settings.added_tokens_decoder ?? {})) {
    added.set(content, { content, id: Number(id), special });
  }
  // A token without an id gets the next free one, in transformers' order.
  const { bos_token, eos_token, unk_token, pad_token, additional_special_tokens } = settings;
  let next = 1 + Object.values(vocab).reduce((largest, id) => Math.max(largest, id), -1);
  for (const { id } of added.values()) next = Math.max(next, id + 1);
  for (const content of [bos_token, eos_token, unk_token, pad_token, ...(additional_special_tokens ?? [])]) {
    if (content == null || content === '') continue;
    const known = added.get(content)?.id ?? (Object.hasOwn(vocab, content) ? vocab[content] : undefined);
    added.set(content, { content, id: known ?? next, special: true });
    if (known === undefined) next += 1;
  }
  return { vocab, merges, added: [...added.values()] };
}

/** In this vocabulary letters stand for bytes, so a space can only separate the two halves. */
function assertMerge(path: string, merge: string): string {
  const [left, right, ...rest] = merge.split(' ');
  if (!left || !right || rest.length > 0)
    invalid(path, `has the merge ${JSON.stringify(merge)}, which is not two tokens`);
  return merge;
}

async function templateOf(folder: string, { chat_template: template }: Settings): Promise<string | undefined> {
  const path = join(folder, 'chat_template.jinja');
  if (await exists(path)) return readTextFile(path, { maxBytes: MAX_TEMPLATE_BYTES, missing: 'it was there' });
  if (typeof template === 'string') return template;
  return (template?.find(({ name }) => name === 'default') ?? template?.[0])?.template;
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

function invalid(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}
