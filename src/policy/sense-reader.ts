import { LruMap } from '../std/lru-map.js';
import { findsMinorAge, findsMinorAgeUnspaced } from './find-ages.js';
import { SenseFinder, WordTree } from './find-senses.js';
import { type Lexicon, type Sense, UNSPACED } from './lexicon.js';
import { fold, hasInvisible, skeleton, sourcesOf, type Token } from './normalise.js';
import { StreamReader } from './streams.js';

const NUMBER: Sense = { topic: 'minor', language: 'und', weak: false };
/** Arabic of which some letters were read as Latin ones: its numbers are torn, and were read before. */
const TORN = /[a-z][\u0600-\u06ff]|[\u0600-\u06ff][a-z]/;
const NO_LETTER_OR_DIGIT = /[^\p{L}\p{M}\p{N}]+/gu;

/** Memory for the words of texts, in characters: the next text has most of them again. */
const MAX_KNOWN = 1_000_000;
/** Texts that are remembered whole: a job's text is checked at each of its stages. */
const MAX_TEXTS = 64;

const NOT_ASCII = /[^\0-\x7f]/;
const MARKED_WORD = /[\p{L}\p{M}]+/gu;
const LONG_RUN = /(\p{L})\1\1/u;

/** "thirteeen" is "thirteen". */
function squeeze(token: Token): Token {
  const { text, hard } = token;
  return LONG_RUN.test(text) ? { text: text.replace(/(\p{L})\1\1+/gu, '$1$1'), hard } : token;
}

/** Reads texts in every way in which a reader or a model may read them, and finds the senses of a lexicon. */
export class SenseReader {
  readonly #lexicon: Lexicon;
  readonly #tree: WordTree;
  #streams = new StreamReader();
  #finder: SenseFinder;
  readonly #texts = new LruMap<string, ReadonlySet<Sense>>(MAX_TEXTS);

  constructor(lexicon: Lexicon) {
    this.#lexicon = lexicon;
    this.#tree = new WordTree(lexicon);
    this.#finder = new SenseFinder(this.#tree);
  }

  /** What a text speaks of, in any of its readings. Takes time in proportion to its length. */
  sensesOf(text: string): ReadonlySet<Sense> {
    const known = this.#texts.get(text) ?? this.sensesOfPart(text);
    this.#texts.set(text, known);
    return known;
  }

  /** The same for a text that does not come again. */
  sensesOfPart(text: string): ReadonlySet<Sense> {
    if (this.#streams.size + this.#finder.size > MAX_KNOWN) {
      this.#streams = new StreamReader();
      this.#finder = new SenseFinder(this.#tree);
    }
    const found = new Set<Sense>();
    const seen = new Set<string>();
    for (const source of sourcesOf(text)) {
      this.#markedWords(source, found);
      for (const gap of hasInvisible(source) ? (['', ' '] as const) : ([''] as const)) {
        const folded = fold(source, gap);
        for (const reading of [folded, skeleton(folded)]) {
          if (seen.has(reading)) continue;
          seen.add(reading);
          this.#read(reading, found);
        }
      }
    }
    return found;
  }

  #markedWords(text: string, found: Set<Sense>): void {
    const { marked } = this.#lexicon;
    if (marked.size === 0 || !NOT_ASCII.test(text)) return;
    for (const [word] of text.normalize('NFC').toLowerCase().matchAll(MARKED_WORD)) {
      const sense = marked.get(word);
      if (sense !== undefined) found.add(sense);
    }
  }

  #read(folded: string, found: Set<Sense>): void {
    const finder = this.#finder;
    const { words, letters, signedWords, joinedWords, joinedLetters, parts, leetParts, changes } =
      this.#streams.streamsOf(folded);
    const apart = finder.apart(parts);
    for (const stream of new Set([words, letters, signedWords, joinedWords, joinedLetters])) {
      finder.ofStream(stream, found, changes.get(stream));
      const taken = stream === parts ? apart : finder.apart(stream);
      if (taken !== undefined) finder.ofStream(taken.stream, found, taken.changes);
    }
    finder.insideTokens(joinedWords, found);
    const isAscii = !NOT_ASCII.test(folded);
    if (isAscii || !TORN.test(folded)) {
      const squeezed = LONG_RUN.test(folded) ? parts.map(squeeze) : parts;
      for (const stream of new Set([parts, apart?.stream ?? parts, leetParts, squeezed])) {
        if (findsMinorAge(stream, this.#lexicon)) found.add(NUMBER);
      }
    }
    if (isAscii || !UNSPACED.test(folded)) return;
    for (const text of new Set([folded, folded.replace(NO_LETTER_OR_DIGIT, '')])) {
      finder.ofUnspaced(text, found);
      if (this.#lexicon.numbers.size > 0 && findsMinorAgeUnspaced(text)) found.add(NUMBER);
    }
  }
}
