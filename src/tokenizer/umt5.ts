import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { InferenceError } from '../errors.js';
import { readJsonFile } from '../std/json-file.js';
import { readSentencePieceModel } from './sentencepiece-model.js';
import { type Part, type SpecialToken, splitAtTokens } from './special-tokens.js';
import { normalizerOf, preTokenizerOf, templateOf, tokenizerJsonSchema, unigramOf } from './tokenizer-json.js';

/** UMT5's tokenizer.json has 17 MB, its spiece.model 5 MB. */
const JSON_FILE = { maxBytes: 100_000_000, missing: 'a UMT5 tokenizer folder has tokenizer.json or spiece.model' };
const MAX_MODEL_BYTES = 50_000_000;
/**
 * Text length that WAN was trained with.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/configs/shared_config.py#L12
 */
const MAX_TOKENS = 512;

const END = '</s>';

export interface Umt5Tokens {
  /** The text's tokens and the end token, at most `maxLength`, no padding. Tokens that do not fit are cut off, the end stays. */
  readonly ids: Int32Array;
  /** Tokens of the whole text and the end token, before anything was cut off. */
  readonly length: number;
}

export interface Umt5Tokenizer {
  readonly maxLength: number;
  /** Id of the end token. */
  readonly end: number;
  encode(text: string): Umt5Tokens;
  /** Ids of the text alone, however many. */
  tokenize(text: string): readonly number[];
  /** A token as the vocabulary spells it: "▁red" where a word begins with it. Empty for an id that it lacks. */
  piece(id: number): string;
}

interface Parts {
  /** Ids of a text without special tokens. @param isFirst true if nothing stands before it */
  readonly ids: (text: string, isFirst: boolean) => readonly number[];
  readonly special: readonly SpecialToken[];
  readonly pieces: readonly string[];
  readonly before: readonly number[];
  readonly after: readonly number[];
  readonly end: number;
}

/**
 * Reads UMT5's tokenizer: `tokenizer.json`, which the reference prefers too, else `spiece.model`. Each is followed to the letter;
 * where one normalises what the other leaves alone, their ids differ, as they do in the reference.
 *
 * @param path the folder, or one of the two files
 * @throws InferenceError CHECKPOINT_INVALID that names the file
 */
export async function readUmt5Tokenizer(path: string, { maxLength = MAX_TOKENS } = {}): Promise<Umt5Tokenizer> {
  const file = await findFile(path);
  try {
    return createTokenizer(file.endsWith('.json') ? await readJson(file) : await readModel(file), maxLength);
  } catch (error) {
    if (error instanceof InferenceError) throw error;
    const problem = error instanceof Error ? error.message : String(error);
    throw new InferenceError('CHECKPOINT_INVALID', `${file} ${problem}`, { cause: error });
  }
}

/** The same from a `spiece.model` that lies in memory: ComfyUI's checkpoints carry it as a tensor. @throws Error */
export function umt5TokenizerFromModel(bytes: Uint8Array, { maxLength = MAX_TOKENS } = {}): Umt5Tokenizer {
  return createTokenizer(partsOfModel(bytes), maxLength);
}

async function findFile(path: string): Promise<string> {
  const entry = await stat(path).catch(() => undefined);
  if (entry?.isFile()) return path;
  for (const name of ['tokenizer.json', 'spiece.model']) {
    if ((await stat(join(path, name)).catch(() => undefined))?.isFile()) return join(path, name);
  }
  throw new InferenceError('CHECKPOINT_INVALID', `${path} has neither tokenizer.json nor spiece.model`);
}

async function readJson(file: string): Promise<Parts> {
  const json = await readJsonFile(file, tokenizerJsonSchema, JSON_FILE);
  const unigram = unigramOf(json);
  const [normalize, preTokenize] = [normalizerOf(json), preTokenizerOf(json)];
  const end = unigram.idOf(END) ?? json.added_tokens.find(({ content }) => content === END)?.id;
  if (end === undefined) throw new Error(`has no ${END}`);
  const pieces = json.model.vocab.map(([text]) => text);
  for (const { id, content } of json.added_tokens) pieces[id] ??= content;
  // Tokens with `normalized` are searched in the normalised text, others in the original text.
  const later = json.added_tokens.filter(({ normalized }) => normalized);
  const words = (text: string, isFirst: boolean) => preTokenize(text, isFirst).flatMap((word) => unigram.encode(word));
  return {
    ids: (text, isFirst) => idsOf(splitAtTokens(normalize(text), later), (part, i) => words(part, isFirst && i === 0)),
    special: json.added_tokens.filter(({ normalized }) => !normalized),
    pieces,
    ...templateOf(json, end),
    end,
  };
}

async function readModel(file: string): Promise<Parts> {
  const { size } = await stat(file);
  if (size > MAX_MODEL_BYTES) throw new Error(`is ${size} bytes long, the limit is ${MAX_MODEL_BYTES}`);
  return partsOfModel(await readFile(file));
}

function partsOfModel(bytes: Uint8Array): Parts {
  const { unigram, special, pieces, normalize } = readSentencePieceModel(bytes);
  const end = unigram.idOf(END);
  if (end === undefined) throw new Error(`has no ${END}`);
  return { ids: (text) => unigram.encode(normalize(text)), special, pieces, before: [], after: [end], end };
}

function createTokenizer({ ids, special, pieces, before, after, end }: Parts, maxLength: number): Umt5Tokenizer {
  const tokenize = (text: string) =>
    // A lone half of a surrogate pair is no character: it becomes U+FFFD.
    idsOf(splitAtTokens(text.replace(/\p{Surrogate}/gu, '\ufffd'), special), (part, i) => ids(part, i === 0));
  const around = before.length + after.length;
  return {
    maxLength,
    end,
    tokenize,
    piece: (id) => pieces[id] ?? '',
    encode(text) {
      const tokens = tokenize(text);
      const kept = [...before, ...tokens.slice(0, maxLength - around), ...after];
      return { ids: Int32Array.from(kept), length: tokens.length + around };
    },
  };
}

function idsOf(parts: readonly Part[], rest: (text: string, i: number) => readonly number[]): number[] {
  return parts.flatMap((part, i) => (part.kind === 'token' ? [part.id] : rest(part.text, i)));
}
