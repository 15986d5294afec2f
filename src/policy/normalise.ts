import { readFileSync } from 'node:fs';
import { decodeHTML } from 'entities';

interface Confusables {
  /** Code points of the digit zero of every script; its other digits follow it. */
  readonly zeros: readonly number[];
  /** Characters by the ASCII letters that they look like. */
  readonly letters: Readonly<Record<string, string>>;
}

const confusables: Confusables = JSON.parse(readFileSync(new URL('./data/confusables.json', import.meta.url), 'utf8'));
const LOOKS_LIKE: ReadonlyMap<string, string> = new Map(
  Object.entries(confusables.letters).flatMap(([to, signs]) => [...signs].map((sign) => [sign, to] as const)),
);

/** Rounds in which HTML references and percent signs are resolved: each may uncover the next. */
const MAX_ROUNDS = 8;

/** Escape sequences of terminals: WAN's cleaning takes them out, their letter too. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
const TERMINAL_ESCAPE = /\u001b\[[\d;]*[a-zA-Z]/g;
/** Characters that show nothing: controls, formats, fillers and selectors. White space is none of them. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800\u3164\uffa0\p{Cn}\p{Co}\ufffd]/gu;
/** Marks of Latin, Greek, Cyrillic, Hebrew and Arabic, and those for any script. Marks of Indic scripts and kana are letters. */
const MARK =
  // biome-ignore lint/suspicious/noMisleadingCharacterClass: marks stand alone here
  /[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]/g;
/** The part of a number behind its point: 12.5 is 12. */
const FRACTION = /(\d)\.\d+/g;
/** ASCII without controls: nothing to fold but its case. */
const PLAIN = /^[\t\n\f\r -~]*$/;
const BLANK = /[\t\n\f\r\u0085]/g;
const OTHER_DIGIT = /(?![0-9])\p{Nd}/gu;

const TAG = /<\/?[a-z][^<>]{0,80}>/gi;
const INNER_CAPITAL = /\p{Ll}\p{Lu}/u;
const INNER_CAPITALS = /(?<=\p{Ll})(?=\p{Lu})/gu;
/** A sign in place of a letter: "n*de". */
const MASK = /(?<=\p{L})[*#](?=\p{L})/u;
const MAX_MASKED_WORDS = 1000;
const VOWELS = ['a', 'e', 'i', 'o', 'u'];
/** What code takes for a comment: "chi/* *\/ld". */
const COMMENT = /\/\*[^*]{0,80}\*\//g;
/** Emoji that speak of people, as words. Names: https://cldr.unicode.org/translation/characters */
const EMOJI: Readonly<Record<string, string>> = {
  '\u{1f476}': 'baby',
  '\u{1f466}': 'boy',
  '\u{1f467}': 'girl',
  '\u{1f9d2}': 'child',
  '\u{1f6b8}': 'children',
  '\u{1f51e}': 'nsfw',
};
const ANY_EMOJI = new RegExp(`[${Object.keys(EMOJI).join('')}]`, 'gu');
/** Greek signs that look like c until NFKC makes them an ordinary sigma. */
const LUNATE_SIGMA = /[ϲϹ]/g;
/** "<18" is "under 18". */
const LESS_THAN = /[<≤＜]\s?(?=1[0-8](?!\d))/g;

/**
 * The texts that a text may be: with its HTML references resolved, without tags and comments, with words for emoji, and its words with
 * capitals as borders and with masked vowels.
 */
export function sourcesOf(text: string): ReadonlySet<string> {
  const sources = new Set<string>();
  for (const resolved of new Set([text, resolveReferences(text)])) {
    const source = resolved.replace(LESS_THAN, ' under ').replace(ANY_EMOJI, (emoji) => ` ${EMOJI[emoji]} `);
    sources.add(source);
    if (source.search(LUNATE_SIGMA) >= 0) sources.add(source.replace(LUNATE_SIGMA, 'c'));
    if (source.includes('/*')) sources.add(source.replace(COMMENT, ''));
    if (source.includes('<')) sources.add(source.replace(TAG, ''));
    if (INNER_CAPITAL.test(source))
      sources.add(wordsWith(INNER_CAPITAL, source).join(' , ').replace(INNER_CAPITALS, ' '));
    if (/[*#]/.test(source) && MASK.test(source)) {
      const words = wordsWith(MASK, source).slice(0, MAX_MASKED_WORDS);
      sources.add(words.flatMap((word) => VOWELS.map((vowel) => word.replace(MASK, vowel))).join(' , '));
    }
  }
  return sources;
}

function wordsWith(pattern: RegExp, text: string): readonly string[] {
  return text.split(/\s+/).filter((word) => pattern.test(word));
}

/** HTML references resolved until none is left, for at most 8 rounds. */
function resolveReferences(text: string): string {
  let resolved = text;
  for (let round = 0; round < MAX_ROUNDS && resolved.includes('&'); round += 1) {
    const next = decodeHTML(resolved);
    if (next === resolved) break;
    resolved = next;
  }
  return resolved;
}

/**
 * The one form of letters that compare equal: NFKC, case folded, without marks; digits of every script as ASCII.
 * @param gap what stands in place of an invisible character: nothing, or a blank
 */
export function fold(text: string, gap: '' | ' ' = ''): string {
  if (PLAIN.test(text)) return text.replace(/\s/g, ' ').toLowerCase().replace(FRACTION, '$1');
  return caseFolded(text.replace(TERMINAL_ESCAPE, '').replace(BLANK, ' ').replace(INVISIBLE, gap).normalize('NFKC'))
    .normalize('NFD')
    .replace(MARK, '')
    .normalize('NFC')
    .replace(OTHER_DIGIT, asciiDigit)
    .replace(FRACTION, '$1');
}

/** True for a text that reads differently with blanks in place of what shows nothing. */
export function hasInvisible(text: string): boolean {
  return !PLAIN.test(text) && text.replace(BLANK, '').search(INVISIBLE) >= 0;
}

/** Full case folding by way of capitals: ß and ss are one, as are all forms of sigma. */
function caseFolded(text: string): string {
  return text.toLowerCase().toUpperCase().toLowerCase().replaceAll('ς', 'σ');
}

function asciiDigit(digit: string): string {
  const code = digit.codePointAt(0) ?? 0;
  const zero = confusables.zeros.findLast((each) => each <= code);
  return zero === undefined ? digit : String((code - zero) % 10);
}

/** Folded text with every character in place of which an ASCII letter may be read. The skeleton of UTS 39, for ASCII only. */
export function skeleton(folded: string): string {
  if (PLAIN.test(folded)) return folded;
  let out = '';
  for (const character of folded) out += LOOKS_LIKE.get(character) ?? character;
  return out;
}

/** Signs and digits that stand for letters. i, l, 1 and | are one letter in keys, as are s and z. */
const LEET: Readonly<Record<string, string>> = {
  0: 'o',
  1: 'i',
  2: 's',
  3: 'e',
  4: 'a',
  5: 's',
  6: 'g',
  7: 't',
  8: 'b',
  9: 'g',
  '@': 'a',
  $: 's',
  '!': 'i',
  '|': 'i',
  '+': 't',
  '€': 'e',
  '£': 'i',
  '¡': 'i',
  l: 'i',
  z: 's',
};

/** A word as it is looked up: with letters for digits and every run of one letter as a single letter. */
export function keyOf(word: string): string {
  let key = '';
  let last = '';
  for (const character of word) {
    const letter = LEET[character] ?? character;
    if (letter !== last) key += letter;
    last = letter;
  }
  return key;
}

/**
 * Length of each run of a word, by the code units of its key. A text has a word if each of its runs is at least as long: "teeen" has
 * "teen", "ten" has not.
 */
export function runsOf(word: string): readonly number[] {
  const runs: number[] = [];
  let last = '';
  for (const character of word) {
    const letter = LEET[character] ?? character;
    if (letter === last) runs[runs.length - 1] = (runs.at(-1) ?? 0) + 1;
    else for (let i = 0; i < letter.length; i += 1) runs.push(1);
    last = letter;
  }
  return runs;
}

/** Tokens of one reading. `hard`: a sign that ends a phrase stands before the token. */
export interface Token {
  readonly text: string;
  readonly hard: boolean;
}

/** A way to take a text apart into words. */
export type Stream = readonly Token[];

const WORD = /[\p{L}\p{M}\p{N}]+/gu;
const LETTERS_OR_DIGITS = /[\p{L}\p{M}]+|\p{N}+/gu;
const WORD_WITH_SIGNS = /[\p{L}\p{M}\p{N}@$!|+€£¡]+/gu;
const NO_LETTER_OR_DIGIT = /[^\p{L}\p{M}\p{N}@$!|+€£¡]+/gu;
const NO_LETTER = /[^\p{L}\p{M}]+/gu;
export const GENITIVE = /['’`]s(?![\p{L}\p{N}])/gu;
/** A sign that ends a phrase. */
export const HARD = /[^\p{L}\p{M}\p{N}\s'’_"<>-]/u;

/** Words of a text, without the 's of a genitive. */
export function wordsOf(folded: string): Stream {
  return tokens(folded.replace(GENITIVE, ' '), WORD);
}

/** Words of a text; letters and digits part: "12yo" is two. */
export function partsOf(folded: string): Stream {
  return tokens(folded.replace(GENITIVE, ' '), LETTERS_OR_DIGITS);
}

/** The same with digits inside of words as letters: "tw3lve ye4rs", "12y0". */
export function leetPartsOf(folded: string): Stream {
  return wordsOf(folded).flatMap(({ text, hard }) => {
    // "1O" and "l2" are numbers.
    if (/^(?=.*\d)[\doil]{2,3}$/.test(text))
      return [{ text: text.replace(/\D/g, (letter) => (letter === 'o' ? '0' : '1')), hard }];
    const digits = /^\d+/.exec(text)?.[0] ?? '';
    const letters = text.slice(digits.length).replace(/\d/g, (digit) => LEET[digit] ?? digit);
    return [digits, letters].filter((part) => part !== '').map((part, i) => ({ text: part, hard: i === 0 && hard }));
  });
}

/** Words of a text in which signs are letters: "$ex". */
export function signedWordsOf(folded: string): Stream {
  return tokens(folded, WORD_WITH_SIGNS);
}

/** What blanks separate, without its signs: "c-h-i" is one word. */
export function joinedWordsOf(folded: string): Stream {
  return chunks(folded, NO_LETTER_OR_DIGIT);
}

/** What blanks separate, without signs and digits: "ch2i2ld". */
export function joinedLettersOf(folded: string): Stream {
  return chunks(folded, NO_LETTER);
}

function tokens(text: string, pattern: RegExp): Stream {
  const found: Token[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    const hard = HARD.test(text.slice(end, match.index));
    found.push({ text: match[0], hard });
    end = match.index + match[0].length;
  }
  return found;
}

function chunks(text: string, without: RegExp): Stream {
  const found: Token[] = [];
  let hard = false;
  for (const chunk of text.split(/\s+/)) {
    const word = chunk.replace(without, '');
    if (word !== '') found.push({ text: word, hard });
    hard = HARD.test(chunk.slice(-1));
  }
  return found;
}
