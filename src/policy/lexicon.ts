import { readdirSync, readFileSync } from 'node:fs';
import { fold, keyOf, partsOf, runsOf, skeleton, wordsOf } from './normalise.js';

/**
 * What a word speaks of. `youth`: girls and boys, who may be adults. `covering`, `adult`: matter in negative prompts only.
 */
const topics = ['minor', 'youth', 'explicit', 'suggestive', 'covering', 'adult'] as const;
export type Topic = (typeof topics)[number];

/** A topic in a language. A weak word is also an everyday word elsewhere: it counts beside words of its own language only. */
export interface Sense {
  readonly topic: Topic;
  readonly language: string;
  readonly weak: boolean;
}

export interface LexiconFile extends Partial<Record<Topic | 'harmless', readonly string[]>> {
  readonly language: string;
  /** Words for years behind a number. */
  readonly years?: readonly string[];
  /** From one to seventeen, in order; spellings of one number are parted by "|". */
  readonly numbers?: readonly string[];
  /** Ends of words that begin with a number and are an age: "jährig*" of "elfjährig". */
  readonly joinedYears?: readonly string[];
  /** Words before a number that make it larger. */
  readonly tens?: readonly string[];
  /** Words before an age. */
  readonly ages?: readonly string[];
  /** Words before an age that nobody has reached. */
  readonly under?: readonly string[];
  /** Animals: their young are harmless ("infant gorilla"). */
  readonly animals?: readonly string[];
  /** Things that are bare without harm ("naked tree"), and the words for bare before them. */
  readonly things?: readonly string[];
  readonly bare?: readonly string[];
  /** Words of the other lists that count with two letters swapped or a vowel left out, too. */
  readonly misspelt?: readonly string[];
}

export interface Entry {
  readonly runs: readonly number[];
  readonly senses: readonly Sense[];
}

/** A word of a phrase. */
interface Key {
  readonly text: string;
  readonly runs: readonly number[];
}

/** A phrase, found by its first word. */
export interface Phrase {
  readonly words: readonly Key[];
  /** Its last word may have any ending. */
  readonly isStem: boolean;
  /** Undefined: it is harmless, and its words do not count. */
  readonly sense: Sense | undefined;
}

export interface Lexicon {
  /** Words by the text of their keys. */
  readonly words: ReadonlyMap<string, readonly Entry[]>;
  /** Beginnings of words with any ending. */
  readonly stems: ReadonlyMap<string, readonly Entry[]>;
  readonly phrases: ReadonlyMap<string, readonly Phrase[]>;
  /** Short words by their spelling with marks: "niña" is no name, "nina" may be one. */
  readonly marked: ReadonlyMap<string, Sense>;
  /** Words of scripts without blanks between words, found anywhere. */
  readonly pieces: ReadonlyMap<string, readonly Sense[]>;
  /** Texts of those scripts that are taken out before. */
  readonly harmlessPieces: readonly string[];
  /** Numbers below eighteen by the texts of their words, parted by blanks. */
  readonly numbers: ReadonlyMap<string, number>;
  /** First words of numbers of several words. */
  readonly numberStarts: ReadonlySet<string>;
  /** Words with which an age in words, a grade or a year of birth may begin. */
  readonly ageBegins: ReadonlySet<string>;
  readonly years: ReadonlySet<string>;
  readonly yearStems: readonly string[];
  readonly tens: ReadonlySet<string>;
  readonly ages: ReadonlySet<string>;
  readonly under: ReadonlySet<string>;
  readonly underStarts: ReadonlySet<string>;
}

/** Words before the number of a year at school. */
export const SCHOOL_YEARS: ReadonlySet<string> = new Set(['grade', 'year', 'form', 'class']);
/** Grades below eighteen. */
export const ORDINALS: ReadonlySet<string> = new Set(
  'zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth'.split(
    ' ',
  ),
);

/** Words that make an animal its young. */
const YOUNG = ['baby', 'infant', 'juvenile', 'newborn', 'adolescent', 'teenage'];

/** Scripts without blanks between words. */
export const UNSPACED = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\p{sc=Thai}ー]/u;

/** Reads the lexicons that come with darkroom. */
export function readLexicon(folder = new URL('./data/lexicon/', import.meta.url)): Lexicon {
  const files = readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name): LexiconFile => JSON.parse(readFileSync(new URL(name, folder), 'utf8')));
  return lexiconOf(files);
}

/** The lexicon of files, or of rules in their form. */
export function lexiconOf(files: readonly LexiconFile[]): Lexicon {
  const builder = new Builder();
  for (const file of files) {
    const { animals = [], things = [], bare = [], misspelt = [] } = file;
    for (const topic of topics) {
      for (const term of file[topic] ?? []) {
        builder.add(term, topic, file.language);
        const [, word = '', ending = ''] = /^(.*?)(\*?)$/.exec(term) ?? [];
        if (!misspelt.includes(word)) continue;
        for (const wrong of misspellings(word)) builder.add(wrong + ending, topic, file.language);
      }
    }
    for (const number of (file.numbers ?? []).flatMap((spellings) => spellings.split('|')))
      for (const end of file.joinedYears ?? []) builder.add(number + end, 'minor', file.language);
    for (const term of file.harmless ?? []) builder.addHarmless(term);
    for (const animal of animals) {
      for (const young of YOUNG) for (const end of ['', 's']) builder.addHarmless(`${young} ${animal}${end}`);
    }
    for (const thing of things) for (const word of bare) builder.addHarmless(`${word} ${thing}`);
    builder.addAges(file);
  }
  return builder;
}

/** A word with two letters swapped, or without one of its vowels; its first letter stays. */
function misspellings(word: string): readonly string[] {
  const wrong: string[] = [];
  for (let i = 1; i < word.length; i += 1) {
    const rest = word.slice(i + 1);
    if (rest !== '') wrong.push(`${word.slice(0, i)}${rest[0]}${word[i]}${rest.slice(1)}`);
    if (/[aeiou]/.test(word[i] ?? '')) wrong.push(word.slice(0, i) + rest);
  }
  return wrong.filter((each) => each !== word);
}

class Builder implements Lexicon {
  readonly words = new Map<string, Entry[]>();
  readonly stems = new Map<string, Entry[]>();
  readonly phrases = new Map<string, Phrase[]>();
  readonly marked = new Map<string, Sense>();
  readonly pieces = new Map<string, Sense[]>();
  readonly harmlessPieces: string[] = [];
  readonly numbers = new Map<string, number>();
  readonly numberStarts = new Set<string>();
  readonly ageBegins = new Set<string>(['born', ...ORDINALS, ...SCHOOL_YEARS]);
  readonly years = new Set<string>();
  readonly yearStems: string[] = [];
  readonly tens = new Set<string>();
  readonly ages = new Set<string>();
  readonly under = new Set<string>();
  readonly underStarts = new Set<string>();

  add(term: string, topic: Topic, language: string): void {
    const isStem = term.endsWith('*');
    const isWeak = term.startsWith('~');
    const folded = fold(term.replace(/^~|\*$/g, ''));
    // Short words are words of many languages and names: "nina", "naga".
    const isShort = /^[a-z]{2,3}$/.test(language) && language !== 'en' && /^[a-z]{1,4}$/.test(folded);
    const sense = { topic, language, weak: isWeak || isShort };
    const spelt = term.normalize('NFC').toLowerCase();
    if (isShort && !isWeak && !isStem && spelt !== folded) this.marked.set(spelt, { ...sense, weak: false });
    if (UNSPACED.test(folded)) {
      const piece = folded.replaceAll(' ', '');
      this.pieces.set(piece, [...(this.pieces.get(piece) ?? []), sense]);
      return;
    }
    this.#addWords(folded, sense, isStem);
    // A word of another script, read with look-alikes of Latin letters: some other word may look so, too.
    const looks = skeleton(folded);
    if (looks !== folded && looks.length > 3) this.#addWords(looks, { ...sense, weak: true }, isStem);
  }

  addHarmless(term: string): void {
    const folded = fold(term);
    if (UNSPACED.test(folded)) {
      for (const piece of new Set([folded, folded.replaceAll(' ', '')])) this.harmlessPieces.push(piece);
      return;
    }
    for (const spelling of new Set([folded, skeleton(folded)])) {
      this.#addPhrase(spelling, undefined, false);
      // A whole word, so that it is not taken apart: "femenino" is no "nino".
      if (wordsOf(spelling).length === 1) this.#addEntry(spelling, [], false);
    }
  }

  addAges({ years = [], numbers = [], tens = [], ages = [], under = [] }: LexiconFile): void {
    for (const term of years) {
      if (term.endsWith('*')) this.yearStems.push(fold(term.slice(0, -1)));
      else this.years.add(fold(term));
    }
    for (const [i, spellings] of numbers.entries()) {
      for (const spelling of spellings.split('|')) {
        const folded = fold(spelling);
        this.numbers.set(folded, i + 1);
        this.numberStarts.add(folded.split(' ')[0] ?? '');
        // The letters of a number may stand apart: "six teen".
        for (let length = 1; length <= folded.length; length += 1) this.ageBegins.add(folded.slice(0, length));
      }
    }
    for (const term of tens) for (const { text } of partsOf(fold(term))) this.tens.add(text);
    for (const term of ages) this.ages.add(fold(term));
    for (const term of under) {
      this.under.add(fold(term));
      this.underStarts.add(fold(term).split(' ')[0] ?? '');
      this.ageBegins.add(fold(term).split(' ')[0] ?? '');
    }
  }

  #addWords(folded: string, sense: Sense, isStem: boolean): void {
    if (wordsOf(folded).length > 1) {
      this.#addPhrase(folded, sense, isStem);
      return;
    }
    this.#addEntry(folded, [sense], isStem);
  }

  #addEntry(folded: string, senses: readonly Sense[], isStem: boolean): void {
    const text = keyOf(folded);
    const runs = runsOf(folded);
    const map = isStem ? this.stems : this.words;
    const entries = map.get(text) ?? [];
    const same = entries.find((entry) => entry.runs.join() === runs.join());
    if (same === undefined) entries.push({ runs, senses });
    else entries[entries.indexOf(same)] = { runs, senses: [...same.senses, ...senses] };
    map.set(text, entries);
  }

  #addPhrase(folded: string, sense: Sense | undefined, isStem: boolean): void {
    const words = wordsOf(folded).map(({ text }) => ({ text: keyOf(text), runs: runsOf(text) }));
    const first = words[0]?.text ?? '';
    const known = this.phrases.get(first);
    if (known === undefined) this.phrases.set(first, [{ words, isStem, sense }]);
    else known.push({ words, isStem, sense });
  }
}
