import { findsMinorAge, findsMinorAgeUnspaced } from './find-ages.js';
import { SenseFinder } from './find-senses.js';
import type { Lexicon, Sense } from './lexicon.js';
import {
  fold,
  joinedLettersOf,
  joinedWordsOf,
  leetPartsOf,
  partsOf,
  resolveReferences,
  type Stream,
  signedWordsOf,
  skeleton,
  wordsOf,
} from './normalise.js';

const NUMBER: Sense = { topic: 'minor', language: 'und', weak: false };
/** Arabic of which some letters were read as Latin ones: its numbers are torn, and were read before. */
const TORN = /[a-z][\u0600-\u06ff]|[\u0600-\u06ff][a-z]/;
const NO_LETTER_OR_DIGIT = /[^\p{L}\p{M}\p{N}]+/gu;

/** Reads texts in every way in which a reader or a model may read them, and finds the senses of a lexicon. */
export class SenseReader {
  readonly #lexicon: Lexicon;
  readonly #finder: SenseFinder;

  constructor(lexicon: Lexicon) {
    this.#lexicon = lexicon;
    this.#finder = new SenseFinder(lexicon);
  }

  /** What a text speaks of, in any of its readings. Takes time in proportion to its length. */
  sensesOf(text: string): ReadonlySet<Sense> {
    const found = new Set<Sense>();
    const seen = new Set<string>();
    for (const source of new Set([text, resolveReferences(text)])) {
      for (const gap of ['', ' '] as const) {
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

  #read(folded: string, found: Set<Sense>): void {
    const finder = this.#finder;
    const parts = partsOf(folded);
    const joined = joinedWordsOf(folded);
    const letters = parts.filter(({ text }) => !/^\d/.test(text));
    const streams: Stream[] = [wordsOf(folded), letters, signedWordsOf(folded), joined, joinedLettersOf(folded)];
    const seen = new Set<string>();
    for (const stream of streams) {
      const words = stream.map(({ text }) => text).join(' ');
      if (seen.has(words)) continue;
      seen.add(words);
      finder.ofStream(stream, found);
      const apart = finder.apart(stream);
      if (apart !== undefined) finder.ofStream(apart, found);
    }
    finder.insideTokens(joined, found);
    for (const stream of [parts, finder.apart(parts), leetPartsOf(folded)]) {
      if (stream === undefined || TORN.test(folded)) continue;
      if (findsMinorAge(stream, this.#lexicon)) found.add(NUMBER);
    }
    for (const text of [folded, folded.replace(NO_LETTER_OR_DIGIT, '')]) {
      finder.ofUnspaced(text, found);
      if (this.#lexicon.numbers.size > 0 && findsMinorAgeUnspaced(text)) found.add(NUMBER);
    }
  }
}
