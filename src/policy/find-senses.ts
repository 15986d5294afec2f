import { COMMON, FILLERS } from './fillers.js';
import { type Entry, type Lexicon, type Phrase, type Sense, UNSPACED } from './lexicon.js';
import { type Key, keyOf, type Stream, type Token } from './normalise.js';

/** Longest word of a lexicon, in characters: bounds the work for each place of a text. */
const MAX_WORD = 28;
/** Most pieces that one word is put together from. */
const MAX_PIECES = 14;
const MIN_STEM = 3;
/** The same for pieces longer than single letters, which may be words of their own. */
const MIN_SPLIT_STEM = 5;
/** Letters of Arabic and Hebrew that stand before a word as its article or preposition. */
const PREFIX = /[الوبفك\u05d4\u05d5\u05d1\u05dc\u05e9\u05de\u05db]/;

/** Finds what the words of a text speak of. All methods take linear time. */
export class SenseFinder {
  readonly #lexicon: Lexicon;
  /** Longest run of a word's letters is not looked at here: these find words inside of longer ones. */
  readonly #joinable: ReadonlyMap<string, readonly Sense[]>;
  readonly #fillers: ReadonlySet<string>;
  /** Every beginning of a word of `joinable`, of the lexicon and of the fillers: a search ends where nothing begins so. */
  readonly #prefixes: ReadonlySet<string>;
  readonly #piecePrefixes: ReadonlySet<string>;

  constructor(lexicon: Lexicon) {
    this.#lexicon = lexicon;
    const joinable = new Map<string, readonly Sense[]>();
    for (const map of [lexicon.words, lexicon.stems]) {
      for (const [key, entries] of map) {
        const isEnglish = entries.some(({ senses }) => senses.some(({ language }) => language === 'en'));
        if (key.length >= (isEnglish || !/^[a-z]/.test(key) ? 3 : 4))
          joinable.set(key, [...(joinable.get(key) ?? []), ...entries.flatMap(({ senses }) => senses)]);
      }
    }
    this.#joinable = joinable;
    const numbers = [...lexicon.numbers.keys()].filter((word) => /^[a-z]{3,}$/.test(word));
    this.#fillers = new Set(FILLERS.map((word) => keyOf(word).text));
    for (const word of numbers) if (!joinable.has(keyOf(word).text)) joinable.set(keyOf(word).text, []);
    this.#prefixes = prefixesOf([
      ...lexicon.words.keys(),
      ...lexicon.stems.keys(),
      ...joinable.keys(),
      ...this.#fillers,
    ]);
    this.#piecePrefixes = prefixesOf([...lexicon.pieces.keys()]);
  }

  /** Senses of words and phrases, and of words whose pieces stand apart. */
  ofStream(stream: Stream, found: Set<Sense>): void {
    const keys = stream.map(({ text }) => keyOf(text));
    const masked = this.#harmless(stream, keys);
    for (const [i, key] of keys.entries()) {
      this.#phrasesAt(keys, masked, i, found);
      if (masked[i] === true) continue;
      if (/^\d+$/.test(stream[i]?.text ?? '')) continue;
      this.#word(key, found);
      this.#pieces(stream, keys, masked, i, found);
    }
  }

  /** Tokens of which words are joined, taken apart; the others as they are. Undefined: no word is joined. */
  apart(stream: Stream): Stream | undefined {
    let changed = false;
    const out: Token[] = [];
    for (const token of stream) {
      const words =
        token.text.length >= 5 && !this.#isWord(token.text) && !this.#lexicon.tens.has(token.text)
          ? this.#split(token.text)
          : undefined;
      if (words === undefined) out.push(token);
      else {
        changed = true;
        for (const [i, text] of words.entries()) out.push({ text, hard: i === 0 && token.hard });
      }
    }
    return changed ? out : undefined;
  }

  /** Senses in one token that has words of two kinds somewhere in it: "xxchildxxnudexx". */
  insideTokens(stream: Stream, found: Set<Sense>): void {
    for (const { text } of stream) {
      if (text.length < 8) continue;
      const key = keyOf(text).text;
      const inside: Sense[] = [];
      for (let i = 0; i < key.length; i += 1) {
        for (let length = 4; length <= MAX_WORD && i + length <= key.length; length += 1) {
          const word = key.slice(i, i + length);
          if (!this.#prefixes.has(word)) break;
          for (const sense of this.#joinable.get(word) ?? []) {
            if (!sense.weak && sense.language === 'en') inside.push(sense);
          }
        }
      }
      const isOf = (...topics: string[]) => inside.some(({ topic }) => topics.includes(topic));
      if (isOf('minor', 'youth') && isOf('explicit', 'suggestive')) for (const sense of inside) found.add(sense);
    }
  }

  /** Senses in text of scripts without blanks between words. @param folded with or without the signs between */
  ofUnspaced(folded: string, found: Set<Sense>): void {
    if (!UNSPACED.test(folded)) return;
    let text = folded;
    for (const harmless of this.#lexicon.harmlessPieces) text = text.replaceAll(harmless, ' ');
    const { pieces, longestPiece } = this.#lexicon;
    for (let i = 0; i < text.length; i += 1) {
      if (text.charCodeAt(i) < 0x0e00) continue;
      for (let length = 1; length <= longestPiece; length += 1) {
        const piece = text.slice(i, i + length);
        if (!this.#piecePrefixes.has(piece)) break;
        for (const sense of pieces.get(piece) ?? []) found.add(sense);
      }
    }
  }

  #isWord(word: string): boolean {
    const key = keyOf(word);
    return fits(this.#lexicon.words.get(key.text), key.runs);
  }

  #word(key: Key, found: Set<Sense>): void {
    this.#bareWord(key, found);
    // The article and prepositions of Arabic and Hebrew are written with the word.
    for (let length = 1; length <= 3 && PREFIX.test(key.text[length - 1] ?? ''); length += 1) {
      if (key.text.length - length >= 2) this.#bareWord(keyOf(key.text.slice(length)), found);
    }
  }

  #bareWord({ text, runs }: Key, found: Set<Sense>): void {
    if (!this.#prefixes.has(text.slice(0, MIN_STEM))) return;
    collect(this.#lexicon.words.get(text), runs, found);
    for (let length = MIN_STEM; length <= text.length && length <= MAX_WORD; length += 1) {
      collect(this.#lexicon.stems.get(text.slice(0, length)), runs, found);
    }
  }

  /** True for tokens that a harmless phrase covers. A phrase does not go over a comma. */
  #harmless(stream: Stream, keys: readonly Key[]): boolean[] {
    const masked: boolean[] = [];
    for (let i = 0; i < keys.length; i += 1) {
      for (const phrase of this.#lexicon.phrases.get(keys[i]?.text ?? '') ?? []) {
        const { words, sense } = phrase;
        if (sense !== undefined || !isAt(phrase, keys, i)) continue;
        if (words.some((_, k) => k > 0 && stream[i + k]?.hard !== false)) continue;
        for (let k = 0; k < words.length; k += 1) masked[i + k] = true;
      }
    }
    return masked;
  }

  #phrasesAt(keys: readonly Key[], masked: readonly boolean[], i: number, found: Set<Sense>): void {
    for (const phrase of this.#lexicon.phrases.get(keys[i]?.text ?? '') ?? []) {
      const { words, sense } = phrase;
      if (sense === undefined || !isAt(phrase, keys, i)) continue;
      if (!words.every((_, k) => masked[i + k] === true)) found.add(sense);
    }
  }

  /** Words whose pieces stand apart: "ch ild", "c h i l d". */
  #pieces(stream: Stream, keys: readonly Key[], masked: readonly boolean[], start: number, found: Set<Sense>): void {
    let joined = stream[start]?.text ?? '';
    let before = keys[start]?.text ?? '';
    let areCommon = COMMON.has(joined);
    for (let k = 1; k < MAX_PIECES && this.#prefixes.has(before); k += 1) {
      const token = stream[start + k];
      if (token === undefined || masked[start + k] === true) return;
      joined += token.text;
      if (joined.length > 2 * MAX_WORD) return;
      areCommon &&= COMMON.has(token.text);
      const key = keyOf(joined);
      if (!areCommon && joined.length >= 3) {
        collect(this.#lexicon.words.get(key.text), key.runs, found);
        // The stem must reach into the last piece: what comes after it is its ending.
        const least = joined.length === k + 1 ? MIN_STEM : MIN_SPLIT_STEM;
        const shortest = Math.max(least, Math.min(before.length + 1, key.text.length));
        for (let length = shortest; length <= Math.min(key.text.length, MAX_WORD); length += 1) {
          collect(this.#lexicon.stems.get(key.text.slice(0, length)), key.runs, found);
        }
      }
      before = key.text;
    }
  }

  /** The words that a token is made of, all of it; undefined where it is something else or has no word of a lexicon. */
  #split(token: string): readonly string[] | undefined {
    const letters = [...token];
    const { text, runs } = keyOf(token);
    // from[end]: where the last word begins; a run of letters may belong to both words at a border.
    const from: (number | undefined)[] = [];
    const terms: (number | undefined)[] = [0];
    for (let at = 0; at < text.length; at += 1) {
      const known = terms[at];
      if (known === undefined) continue;
      for (const start of at > 0 ? [at, at - 1] : [at]) {
        for (let end = Math.max(start + 2, at + 1); end <= Math.min(start + MAX_WORD, text.length); end += 1) {
          const word = text.slice(start, end);
          if (!this.#prefixes.has(word)) break;
          const isTerm = this.#joinable.has(word);
          if (!isTerm && !this.#fillers.has(word)) continue;
          const count = known + (isTerm ? 1 : 0);
          if (count <= (terms[end] ?? -1)) continue;
          terms[end] = count;
          from[end] = start;
        }
      }
    }
    if ((terms[text.length] ?? 0) === 0) return undefined;
    const places = [0];
    for (const run of runs) places.push((places.at(-1) ?? 0) + run);
    const words: string[] = [];
    for (let end = text.length; end > 0; ) {
      const start = from[end] ?? 0;
      words.push(letters.slice(places[start], places[end]).join(''));
      end = start > 0 && terms[start] === undefined ? start + 1 : start;
    }
    return words.length > 1 ? words.reverse() : undefined;
  }
}

/** True where a phrase stands at a place. */
function isAt({ words, isStem }: Phrase, keys: readonly Key[], at: number): boolean {
  return words.every(({ text, runs }, k) => {
    const key = keys[at + k];
    const isSame = isStem && k === words.length - 1 ? key?.text.startsWith(text) : key?.text === text;
    return isSame === true && runs.every((run, i) => (key?.runs[i] ?? 0) >= run);
  });
}

function fits(entries: readonly Entry[] | undefined, runs: readonly number[]): boolean {
  return entries?.some((entry) => entry.runs.every((run, i) => (runs[i] ?? 0) >= run)) ?? false;
}

function collect(entries: readonly Entry[] | undefined, runs: readonly number[], found: Set<Sense>): void {
  for (const entry of entries ?? []) {
    if (!entry.runs.every((run, i) => (runs[i] ?? 0) >= run)) continue;
    for (const sense of entry.senses) found.add(sense);
  }
}

function prefixesOf(words: readonly string[]): ReadonlySet<string> {
  const prefixes = new Set<string>();
  for (const word of words)
    for (let length = 1; length <= word.length; length += 1) prefixes.add(word.slice(0, length));
  return prefixes;
}
