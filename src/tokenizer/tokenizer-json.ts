/**
 * A unigram model from a `tokenizer.json` of Hugging Face's `tokenizers`: its pieces, and the steps before and after
 * them. Steps that no such model is published with are refused by name.
 * https://github.com/huggingface/tokenizers/tree/v0.22.1/tokenizers/src
 */
import { z } from 'zod';
import { Charsmap } from './charsmap.js';
import { Unigram } from './unigram.js';
import { MAX_ADDED_TOKENS, MAX_TOKENS } from './vocabulary-schema.js';

/** SentencePiece trains pieces of up to 16 characters; names of special tokens are longer. */
const MAX_PIECE_CHARACTERS = 256;
/** Steps are listed once, at most in nested lists. */
const MAX_STEPS = 32;

const steps = <T extends z.ZodType>(step: T) => z.array(step).max(MAX_STEPS);

/** The only published pattern. Any other could take for ever on a hostile text. */
const patternSchema = z.union([
  z.object({ String: z.string().min(1) }),
  z.object({ Regex: z.literal(' {2,}', 'only the pattern " {2,}" is known') }),
]);

const plainNormalizer = z.discriminatedUnion('type', [
  // Empty if the model was trained on unnormalised text.
  z.object({ type: z.literal('Precompiled'), precompiled_charsmap: z.base64().nullable() }),
  z.object({ type: z.literal('Replace'), pattern: patternSchema, content: z.string() }),
  z.object({ type: z.literal('Strip'), strip_left: z.boolean(), strip_right: z.boolean() }),
  z.object({ type: z.literal('Prepend'), prepend: z.string() }),
  z.object({ type: z.literal('Lowercase') }),
  z.object({ type: z.literal('NFC') }),
  z.object({ type: z.literal('NFD') }),
  z.object({ type: z.literal('NFKC') }),
  z.object({ type: z.literal('NFKD') }),
]);
const normalizerSchema = z.union([
  plainNormalizer,
  z.object({ type: z.literal('Sequence'), normalizers: steps(plainNormalizer) }),
]);

const plainPreTokenizer = z.discriminatedUnion('type', [
  z.object({ type: z.literal('WhitespaceSplit') }),
  z.object({
    type: z.literal('Metaspace'),
    replacement: z.string().min(1).max(4),
    add_prefix_space: z.boolean().default(true),
    prepend_scheme: z.enum(['always', 'first', 'never']).optional(),
    split: z.boolean().default(true),
  }),
]);
const preTokenizerSchema = z.union([
  plainPreTokenizer,
  z.object({ type: z.literal('Sequence'), pretokenizers: steps(plainPreTokenizer) }),
]);

const templateSchema = z.object({
  type: z.literal('TemplateProcessing'),
  single: z
    .array(
      z.union([
        z.object({ Sequence: z.object({ id: z.string() }) }),
        z.object({ SpecialToken: z.object({ id: z.string() }) }),
      ]),
    )
    .max(MAX_STEPS),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.int().min(0)).max(MAX_STEPS) })),
});

type Pieces = readonly (readonly [piece: string, score: number])[];

/** Checked by hand, as vocabularies are: the first bad piece is enough. */
const piecesSchema = z
  .custom<Pieces>(
    (value) => Array.isArray(value) && value.length > 0 && value.length <= MAX_TOKENS,
    `must be a list of 1 to ${MAX_TOKENS} pieces`,
  )
  .superRefine((pieces, context) => {
    const bad = pieces.findIndex((entry) => !isPiece(entry));
    if (bad < 0) return;
    const message = `must be a piece of at most ${MAX_PIECE_CHARACTERS} characters and its score`;
    context.addIssue({ code: 'custom', path: [bad], message });
  });

function isPiece(entry: unknown): boolean {
  if (!Array.isArray(entry) || entry.length !== 2) return false;
  const [piece, score]: readonly unknown[] = entry;
  return typeof piece === 'string' && piece.length <= MAX_PIECE_CHARACTERS && typeof score === 'number';
}

export const tokenizerJsonSchema = z.object({
  added_tokens: z
    .array(
      z.object({
        id: z.int().min(0),
        content: z.string().min(1).max(MAX_PIECE_CHARACTERS),
        lstrip: z.boolean().default(false),
        rstrip: z.boolean().default(false),
        single_word: z.boolean().default(false),
        normalized: z.boolean().default(false),
      }),
    )
    .max(MAX_ADDED_TOKENS)
    .default([]),
  normalizer: normalizerSchema.nullish(),
  pre_tokenizer: preTokenizerSchema.nullish(),
  post_processor: templateSchema.nullish(),
  model: z.object({
    type: z.literal('Unigram', 'is of another kind than Unigram'),
    unk_id: z.int().min(0),
    byte_fallback: z.boolean().default(false),
    vocab: piecesSchema,
  }),
});

export type TokenizerJson = z.infer<typeof tokenizerJsonSchema>;
type Normalizer = z.infer<typeof plainNormalizer>;
type PreTokenizer = z.infer<typeof plainPreTokenizer>;

/** @throws Error, one sentence without the file's name, where the unknown piece or the charsmap is none */
export function unigramOf({ model }: TokenizerJson): Unigram {
  const { vocab, unk_id: unknown, byte_fallback: byteFallback } = model;
  if (unknown >= vocab.length) throw new Error(`names piece ${unknown} as unknown, it has ${vocab.length}`);
  return new Unigram({ pieces: vocab.map(([text, score]) => ({ text, score })), unknown, byteFallback });
}

/** Normalises a text as the file says. */
export function normalizerOf({ normalizer }: TokenizerJson): (text: string) => string {
  if (normalizer == null) return (text) => text;
  const list = normalizer.type === 'Sequence' ? normalizer.normalizers : [normalizer];
  const all = list.map(normalizerStep);
  return (text) => all.reduce((result, step) => step(result), text);
}

function normalizerStep(step: Normalizer): (text: string) => string {
  switch (step.type) {
    case 'Precompiled': {
      if (!step.precompiled_charsmap) return (text) => text;
      const charsmap = new Charsmap(Buffer.from(step.precompiled_charsmap, 'base64'));
      return (text) => charsmap.normalizeClusters(text);
    }
    case 'Replace': {
      const { pattern, content } = step;
      const found = 'String' in pattern ? pattern.String : / {2,}/g;
      return (text) => text.replaceAll(found, () => content);
    }
    case 'Strip':
      return (text) => {
        const left = step.strip_left ? text.replace(/^\p{White_Space}+/u, '') : text;
        return step.strip_right ? left.slice(0, trimmedLength(left)) : left;
      };
    case 'Prepend':
      return (text) => (text === '' ? text : step.prepend + text);
    case 'Lowercase':
      // A character at a time, as the reference does: a whole string would end a Greek word in another sigma.
      return (text) => Array.from(text, (character) => character.toLowerCase()).join('');
    default:
      return (text) => text.normalize(step.type);
  }
}

/** `isFirst`: nothing stands before the text, not even a special token. */
export type PreTokenize = (text: string, isFirst: boolean) => readonly string[];

/** Splits a normalised text into words, before these are split into pieces. */
export function preTokenizerOf({ pre_tokenizer: preTokenizer }: TokenizerJson): PreTokenize {
  if (preTokenizer == null) return (text) => (text === '' ? [] : [text]);
  const list = preTokenizer.type === 'Sequence' ? preTokenizer.pretokenizers : [preTokenizer];
  const all = list.map(preTokenizerStep);
  return (text, isFirst) => {
    let words: readonly Word[] = [{ text, isFirst }];
    for (const step of all) words = words.flatMap(step).filter((word) => word.text !== '');
    return words.map((word) => word.text);
  };
}

interface Word {
  readonly text: string;
  /** True at the start of the whole text. */
  readonly isFirst: boolean;
}

function preTokenizerStep(step: PreTokenizer): (word: Word) => readonly Word[] {
  if (step.type === 'WhitespaceSplit') {
    return ({ text, isFirst }) =>
      text.split(/\p{White_Space}+/u).map((part, i) => ({ text: part, isFirst: isFirst && i === 0 }));
  }
  const { replacement, split } = step;
  const scheme = step.prepend_scheme ?? (step.add_prefix_space ? 'always' : 'never');
  return ({ text, isFirst }) => {
    if (text === '') return [];
    const marked = text.replaceAll(' ', () => replacement);
    const wants = scheme === 'always' || (scheme === 'first' && isFirst);
    const whole = wants && !marked.startsWith(replacement) ? replacement + marked : marked;
    if (!split) return [{ text: whole, isFirst }];
    // The mark belongs to the word that it starts.
    const [before = '', ...words] = whole.split(replacement);
    return [before, ...words.map((word) => replacement + word)].map((part, i) => ({
      text: part,
      isFirst: isFirst && i === 0,
    }));
  };
}

/** Ids around every text. If the file has none, T5's end token. */
export function templateOf(
  { post_processor: template }: TokenizerJson,
  end: number,
): { readonly before: readonly number[]; readonly after: readonly number[] } {
  if (template == null) return { before: [], after: [end] };
  const place = template.single.findIndex((item) => 'Sequence' in item);
  const ids = (items: typeof template.single) =>
    items.flatMap((item) => ('SpecialToken' in item ? (template.special_tokens[item.SpecialToken.id]?.ids ?? []) : []));
  return { before: ids(template.single.slice(0, Math.max(place, 0))), after: ids(template.single.slice(place + 1)) };
}

/** Removes trailing white space. A pattern anchored at the end would start at every space of the text. */
function trimmedLength(text: string): number {
  let length = text.length;
  while (length > 0 && /\p{White_Space}/u.test(text.charAt(length - 1))) length -= 1;
  return length;
}
