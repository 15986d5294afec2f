import { join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { readJsonFile, readTextFile } from '../json-file.js';
import { BytePairs, byteCharacters } from './byte-pairs.js';

/** CLIP's vocabulary is 1 MB of JSON. */
const FILE = { maxBytes: 50_000_000, missing: 'a CLIP tokenizer folder has vocab.json and merges.txt' };
/** Words: contractions, runs of letters, single digits, runs of anything else but space. https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py#L78 */
const WORD = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;
const END_OF_WORD = '</w>';

export interface TokenIds {
  /** [model_max_length]: begin, tokens, end, padding. Tokens that do not fit are cut off, the end stays. */
  readonly ids: Int32Array;
  /** Tokens of the whole text, begin and end counted, before anything was cut off. */
  readonly length: number;
}

export interface ClipTokenizer {
  readonly maxLength: number;
  encode(text: string): TokenIds;
  /** Ids of the text alone, however many. */
  tokenize(text: string): readonly number[];
}

const vocabularySchema = z.record(z.string(), z.int().min(0));
/** A token is written as its text, or as an object that holds it. */
const tokenSchema = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)]);
const tokensSchema = z.object({
  bos_token: tokenSchema.optional(),
  eos_token: tokenSchema.optional(),
  pad_token: tokenSchema.optional(),
  unk_token: tokenSchema.optional(),
});
const configSchema = tokensSchema.extend({ model_max_length: z.int().min(2).max(10_000).default(77) });

/**
 * Reads a tokenizer folder: vocab.json and merges.txt; tokenizer_config.json and special_tokens_map.json where they are.
 * @throws InferenceError CHECKPOINT_INVALID that names the file
 */
export async function readClipTokenizer(folder: string): Promise<ClipTokenizer> {
  const at = (name: string) => join(folder, name);
  const vocabulary = new Map(Object.entries(await readJsonFile(at('vocab.json'), vocabularySchema, FILE)));
  const lines = (await readTextFile(at('merges.txt'), FILE)).split('\n').map((line) => line.trimEnd());
  const merges = lines.filter((line) => line !== '' && !line.startsWith('#version'));
  const malformed = merges.find((line) => line.split(' ').length !== 2);
  if (malformed !== undefined) refuse(at('merges.txt'), `has a line that is not two symbols: "${malformed}"`);
  const optional = { ...FILE, fallback: {} };
  const config = await readJsonFile(at('tokenizer_config.json'), configSchema, optional);
  const map = await readJsonFile(at('special_tokens_map.json'), tokensSchema, optional);
  const idOf = (role: keyof z.infer<typeof tokensSchema>, fallback: string): { text: string; id: number } => {
    const text = config[role] ?? map[role] ?? fallback;
    const id = vocabulary.get(text);
    return id === undefined ? refuse(at('vocab.json'), `has no ${role} "${text}"`) : { text, id };
  };
  const end = idOf('eos_token', '<|endoftext|>');
  return createClipTokenizer({
    vocabulary,
    pairs: new BytePairs(merges),
    maxLength: config.model_max_length,
    begin: idOf('bos_token', '<|startoftext|>'),
    end,
    pad: idOf('pad_token', end.text),
    unknown: idOf('unk_token', end.text),
  });
}

interface Parts {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly pairs: BytePairs;
  readonly maxLength: number;
  readonly begin: Token;
  readonly end: Token;
  readonly pad: Token;
  readonly unknown: Token;
}

interface Token {
  readonly text: string;
  readonly id: number;
}

function createClipTokenizer({ vocabulary, pairs, maxLength, begin, end, pad, unknown }: Parts): ClipTokenizer {
  const special = new Map([begin, end].map(({ text, id }) => [text, id]));
  // Special tokens written in the text are those tokens, as in the reference; their case counts.
  const specialPattern = new RegExp(`(${[...special.keys()].map(escapePattern).join('|')})`);
  const word = (text: string): number[] => {
    const symbols = Array.from(new TextEncoder().encode(text), (byte) => byteCharacters[byte] ?? '');
    symbols.push(`${symbols.pop() ?? ''}${END_OF_WORD}`);
    return pairs.merge(symbols).map((piece) => vocabulary.get(piece) ?? unknown.id);
  };
  const tokenize = (text: string): readonly number[] =>
    text.split(specialPattern).flatMap((part) => {
      const id = special.get(part);
      if (id !== undefined) return [id];
      const words = part.normalize('NFC').replace(/\s+/gu, ' ').toLowerCase().match(WORD) ?? [];
      return words.flatMap(word);
    });
  return {
    maxLength,
    tokenize,
    encode(text) {
      const tokens = tokenize(text);
      const kept = [begin.id, ...tokens.slice(0, maxLength - 2), end.id];
      const ids = new Int32Array(maxLength).fill(pad.id);
      ids.set(kept);
      return { ids, length: tokens.length + 2 };
    },
  };
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
