import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { readJsonFile, readTextFile } from '../std/json-file.js';
import { BytePairs, byteCharacters } from './byte-pairs.js';
import { type ClipJson, readClipJson } from './clip-json.js';
import { vocabularySchema } from './vocabulary-schema.js';

/** CLIP's vocabulary is 1 MB of JSON. */
const FILE = {
  maxBytes: 50_000_000,
  missing: 'a CLIP tokenizer folder has vocab.json and merges.txt, or tokenizer.json',
};
/** Words: contractions, runs of letters, single digits, runs of anything else but space. https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py#L78 */
const WORD = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
/** Unicode's white space, as the reference counts it: JavaScript's \s has U+FEFF and lacks U+0085. */
const SPACES = /\p{White_Space}+/gu;
export const END_OF_WORD = '</w>';

export interface TokenIds {
  /** [model_max_length]: begin, tokens, end, padding. Tokens that do not fit are cut off, the end stays. */
  readonly ids: Int32Array;
  /** Tokens of the whole text, begin and end counted, before anything was cut off. */
  readonly length: number;
}

export interface ClipTokenizer {
  readonly maxLength: number;
  /** Ids of the special tokens. */
  readonly begin: number;
  readonly end: number;
  readonly pad: number;
  encode(text: string): TokenIds;
  /** Ids of the text alone, however many. */
  tokenize(text: string): readonly number[];
  /** A token as the vocabulary spells it: "red</w>" where a word ends with it. Empty for an id that it lacks. */
  piece(id: number): string;
}

/** A token is written as its text, or as an object that holds it; `normalized` is true where its case does not count. */
const tokenSchema = z.union([
  z.string().transform((content) => ({ content, normalized: false })),
  z.object({ content: z.string().min(1), normalized: z.boolean().default(false) }),
]);
const tokensSchema = z.object({
  bos_token: tokenSchema.nullish(),
  eos_token: tokenSchema.nullish(),
  pad_token: tokenSchema.nullish(),
  unk_token: tokenSchema.nullish(),
});
const configSchema = tokensSchema.extend({
  model_max_length: z.int().min(2).max(10_000).optional(),
  added_tokens_decoder: z.record(z.string(), tokenSchema).optional(),
});

/**
 * Reads a tokenizer folder: vocab.json and merges.txt, or tokenizer.json where these are not; tokenizer_config.json and
 * special_tokens_map.json where they are.
 * @param padId pads with this id instead of the folder's padding token
 * @throws InferenceError CHECKPOINT_INVALID that names the file
 */
export async function readClipTokenizer(
  folder: string,
  { padId }: { readonly padId?: number } = {},
): Promise<ClipTokenizer> {
  const at = (name: string) => join(folder, name);
  const isJson = !(await exists(at('vocab.json'))) && (await exists(at('tokenizer.json')));
  const file = at(isJson ? 'tokenizer.json' : 'vocab.json');
  const { vocabulary, merges, ...own } = isJson ? await readClipJson(file) : await readVocabAndMerges(folder);
  const malformed = merges.find((line) => line.split(' ').length !== 2);
  if (malformed !== undefined)
    refuse(isJson ? file : at('merges.txt'), `has a line that is not two symbols: "${malformed.slice(0, 80)}"`);
  const optional = { ...FILE, fallback: {} };
  const config = await readJsonFile(at('tokenizer_config.json'), configSchema, optional);
  const map = await readJsonFile(at('special_tokens_map.json'), tokensSchema, optional);
  // Files of today list their special tokens in the configuration; before, the map had the last word.
  const added = config.added_tokens_decoder ? Object.values(config.added_tokens_decoder) : own.added;
  const named = (role: keyof z.infer<typeof tokensSchema>) =>
    config.added_tokens_decoder ? (config[role] ?? map[role]) : (map[role] ?? config[role]);
  const tokenOf = (role: keyof z.infer<typeof tokensSchema>, fallback: string): Token => {
    const { content, normalized } = named(role) ?? { content: own.named[role] ?? fallback, normalized: false };
    const id = vocabulary.get(content);
    if (id === undefined) return refuse(file, `has no ${role} "${content}"`);
    return {
      text: content,
      id,
      normalized: added.find((token) => token.content === content)?.normalized ?? normalized,
    };
  };
  const tokenWithId = (wanted: number): Token => {
    const found = [...vocabulary].find(([, id]) => id === wanted);
    return found ? { text: found[0], id: wanted, normalized: false } : refuse(file, `has no id ${wanted}`);
  };
  const end = tokenOf('eos_token', '<|endoftext|>');
  return createClipTokenizer({
    vocabulary,
    pairs: new BytePairs(merges),
    maxLength: config.model_max_length ?? own.maxLength ?? 77,
    begin: tokenOf('bos_token', '<|startoftext|>'),
    end,
    pad: padId === undefined ? tokenOf('pad_token', end.text) : tokenWithId(padId),
    unknown: tokenOf('unk_token', end.text),
    others: own.added.flatMap(({ content, normalized }) => {
      const id = vocabulary.get(content);
      return id === undefined ? [] : { text: content, id, normalized };
    }),
  });
}

async function readVocabAndMerges(folder: string): Promise<ClipJson> {
  const vocabulary = await readJsonFile(join(folder, 'vocab.json'), vocabularySchema(), FILE);
  const lines = (await readTextFile(join(folder, 'merges.txt'), FILE)).split('\n').map((line) => line.trimEnd());
  const merges = lines.filter((line) => line !== '' && !line.startsWith('#version'));
  return { vocabulary: new Map(Object.entries(vocabulary)), merges, added: [], named: {}, maxLength: undefined };
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

export interface ClipParts {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly pairs: BytePairs;
  readonly maxLength: number;
  readonly begin: Token;
  readonly end: Token;
  readonly pad: Token;
  readonly unknown: Token;
  /** Additional tokens that are found in the original text. */
  readonly others: readonly Token[];
}

interface Token {
  readonly text: string;
  readonly id: number;
  /** True: found after lower-casing. False: found in the original text. */
  readonly normalized: boolean;
}

/** Puts a tokenizer together from a vocabulary, its merges and its special tokens. */
export function createClipTokenizer({
  vocabulary,
  pairs,
  maxLength,
  begin,
  end,
  pad,
  unknown,
  others,
}: ClipParts): ClipTokenizer {
  // Special tokens written in the text are those tokens, the padding of the second encoder ("!") too, as in the reference.
  const roles = [begin, end, pad, unknown];
  const specials = [...roles, ...others.filter(({ text }) => roles.every((role) => role.text !== text))];
  const special = new Map(specials.map(({ text, id }) => [text, id]));
  const asWritten = patternOf(specials.filter(({ normalized }) => !normalized));
  const onceNormal = patternOf(specials.filter(({ normalized }) => normalized));
  const word = (text: string): number[] => {
    const symbols = Array.from(new TextEncoder().encode(text), (byte) => byteCharacters[byte] ?? '');
    symbols.push(`${symbols.pop() ?? ''}${END_OF_WORD}`);
    return pairs.merge(symbols).map((piece) => vocabulary.get(piece) ?? unknown.id);
  };
  const words = (text: string): number[] => (text.match(WORD) ?? []).flatMap(word);
  const split = (text: string, pattern: RegExp, rest: (text: string) => readonly number[]): number[] =>
    text.split(pattern).flatMap((part, i) => (i % 2 === 1 ? [special.get(part) ?? unknown.id] : rest(part)));
  const tokenize = (text: string): readonly number[] =>
    split(text, asWritten, (part) => split(normalize(part), onceNormal, words));
  const pieces = new Map(Array.from(vocabulary, ([piece, id]) => [id, piece]));
  return {
    maxLength,
    begin: begin.id,
    end: end.id,
    pad: pad.id,
    tokenize,
    piece: (id) => pieces.get(id) ?? '',
    encode(text) {
      const tokens = tokenize(text);
      const special = { begin: begin.id, end: end.id, pad: pad.id, maxLength };
      return { ids: fitTokens(special, tokens), length: tokens.length + 2 };
    },
  };
}

/** [maxLength]: begin, tokens, end, padding. Tokens that do not fit are cut off. */
export function fitTokens(
  { begin, end, pad, maxLength }: Pick<ClipTokenizer, 'begin' | 'end' | 'pad' | 'maxLength'>,
  tokens: readonly number[],
): Int32Array {
  const ids = new Int32Array(maxLength).fill(pad);
  ids.set([begin, ...tokens.slice(0, maxLength - 2), end]);
  return ids;
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}

/** Matches any of the tokens, the longest first, and captures it; matches nothing where there are none. */
function patternOf(tokens: readonly Token[]): RegExp {
  const texts = tokens.map(({ text }) => text).sort((a, b) => b.length - a.length);
  return new RegExp(`(${texts.map(escapePattern).join('|') || '[]'})`);
}

// Lower-cased a character at a time: a whole string would end a Greek word in another sigma than the reference does.
function normalize(text: string): string {
  return Array.from(text.normalize('NFC').replace(SPACES, ' '), (character) => character.toLowerCase()).join('');
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
