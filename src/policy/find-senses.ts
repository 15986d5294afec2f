import { COMMON, FILLERS } from './fillers.js';
import { type Entry, type Lexicon, type Phrase, type Sense, UNSPACED } from './lexicon.js';
import { keyOf, runsOf, type Stream, type Token } from './normalise.js';

/** Longest word of a lexicon, in characters: bounds the work for each place of a text. */
const MAX_WORD = 28;
/** Most pieces that one word is put together from. */
const MAX_PIECES = 14;
/** What an object counts in `size`. */
const OBJECT = 50;
const NOTHING: readonly never[] = [];
const MIN_STEM = 3;
/** The same for pieces longer than single letters, which may be words of their own. */
const MIN_SPLIT_STEM = 5;
/** Shortest token that may have two words in it. */
const MIN_LONG = 8;
/** Letters of Arabic and Hebrew that stand before a word as its article or preposition. */
const PREFIX = /[الوبفك\u05d4\u05d5\u05d1\u05dc\u05e9\u05de\u05db]/;

/** A place in the tree of all words: what the letters up to here are. */
interface Node {
  readonly next: Map<number, Node>;
  /** Words of the lexicon that end here, and beginnings of words with any ending. */
  words?: readonly Entry[] | undefined;
  stems?: readonly Entry[] | undefined;
  /** Senses of a word that may be joined with others. */
  joinable?: readonly Sense[] | undefined;
  isFiller?: boolean;
}

/** A word of a text, looked up once however often it comes. */
interface Word {
  readonly text: string;
  readonly key: string;
  /** First and last letter of the key. */
  readonly first: string;
  readonly last: string;
  readonly isNumber: boolean;
  readonly isCommon: boolean;
  /** Where its key ends in the tree; undefined if no word begins so. */
  readonly node: Node | undefined;
  readonly senses: readonly Sense[];
  /** Phrases that begin with it, and those that are harmless. */
  readonly phrases: readonly Phrase[];
  readonly harmless: readonly Phrase[];
  /** See `runsOf`; undefined: not looked at yet. */
  runs?: readonly number[];
  /** See `apart`; undefined: not looked at yet. */
  pieces?: readonly Token[] | 'whole';
  /** See `insideTokens`. */
  inside?: readonly Sense[];
}

/** A token that remembers its word. Streams share tokens. */
interface KnownToken extends Token {
  word?: Word;
}

/** A stream and the places where it differs from another. */
interface ChangedStream {
  readonly stream: Stream;
  readonly changes: readonly number[];
}

/** Finds what the words of texts speak of, and remembers each word. All methods take linear time. */
export class SenseFinder {
  readonly #tree: WordTree;
  readonly #lexicon: Lexicon;
  readonly #words = new Map<string, Word>();
  #size = 0;

  constructor(tree: WordTree) {
    this.#tree = tree;
    this.#lexicon = tree.lexicon;
  }

  /** Memory for the words that are remembered, in characters. */
  get size(): number {
    return this.#size;
  }

  /**
   * Senses of words and phrases, and of words whose pieces stand apart.
   * @param changes places where the stream differs from one that was read before. Omitted: all of it is read
   */
  ofStream(stream: readonly KnownToken[], found: Set<Sense>, changes?: readonly number[]): void {
    const { reach } = this.#tree;
    for (const [from, to] of rangesAround(changes, stream.length, reach)) this.#ofRange(stream, from, to, found);
  }

  /** Senses that begin in a range of places. */
  #ofRange(stream: readonly KnownToken[], from: number, to: number, found: Set<Sense>): void {
    const { reach } = this.#tree;
    const begin = Math.max(0, from - reach);
    const tokens = begin === 0 && to === stream.length ? stream : stream.slice(begin, to + 2 * reach);
    const words: Word[] = [];
    for (const token of tokens) words.push(this.#lookUp(token));
    const masked = harmless(tokens, words);
    for (let i = from - begin; i < to - begin; i += 1) {
      const { phrases, senses, node, isNumber } = words[i] as Word;
      for (const phrase of phrases) {
        if (phrase.sense === undefined || !isAt(phrase, words, i)) continue;
        if (!phrase.words.every((_, k) => masked.has(i + k))) found.add(phrase.sense);
      }
      if (isNumber || masked.has(i)) continue;
      for (const sense of senses) found.add(sense);
      if (node !== undefined) this.#pieces(words, masked, i, node, found);
    }
  }

  /** Tokens of which words are joined, taken apart; the others as they are. Undefined: no word is joined. */
  apart(stream: readonly KnownToken[]): ChangedStream | undefined {
    const changes: number[] = [];
    const out: Token[] = [];
    for (const token of stream) {
      const word = this.#lookUp(token);
      word.pieces ??= this.#split(word)?.map((text) => ({ text, hard: false })) ?? 'whole';
      if (word.pieces === 'whole') out.push(token);
      else {
        for (const piece of word.pieces) {
          changes.push(out.length);
          out.push(token.hard && piece === word.pieces[0] ? { ...piece, hard: true } : piece);
        }
      }
    }
    return changes.length > 0 ? { stream: out, changes } : undefined;
  }

  /** Senses in one token that has words of two kinds somewhere in it: "xxchildxxnudexx". */
  insideTokens(stream: readonly KnownToken[], found: Set<Sense>): void {
    for (const token of stream) {
      if (token.text.length < MIN_LONG) continue;
      const word = this.#lookUp(token);
      word.inside ??= this.#inside(word.key);
      for (const sense of word.inside) found.add(sense);
    }
  }

  /** Senses in text of scripts without blanks between words. @param folded with or without the signs between */
  ofUnspaced(folded: string, found: Set<Sense>): void {
    if (!UNSPACED.test(folded)) return;
    let text = folded;
    for (const piece of this.#lexicon.harmlessPieces) text = text.replaceAll(piece, ' ');
    for (let i = 0; i < text.length; i += 1) {
      if (text.charCodeAt(i) < 0x0e00) continue;
      let node = this.#tree.pieces.next.get(text.charCodeAt(i));
      for (let end = i + 1; node !== undefined; end += 1) {
        for (const sense of node.joinable ?? []) found.add(sense);
        node = node.next.get(text.charCodeAt(end));
      }
    }
  }

  #lookUp(token: KnownToken): Word {
    if (token.word !== undefined) return token.word;
    const word = this.#words.get(token.text) ?? this.#read(token.text);
    if (!this.#words.has(token.text)) {
      this.#words.set(token.text, word);
      this.#size += token.text.length + OBJECT;
    }
    token.word = word;
    return word;
  }

  #read(text: string): Word {
    const key = keyOf(text);
    const senses = new Set<Sense>();
    const node = this.#bareWord(text, key, senses);
    // The article and prepositions of Arabic and Hebrew are written with the word.
    for (let length = 1; length <= 3 && PREFIX.test(key[length - 1] ?? ''); length += 1) {
      if (key.length - length >= 2) this.#bareWord(key.slice(length), key.slice(length), senses);
    }
    const phrases = this.#lexicon.phrases.get(key) ?? NOTHING;
    return {
      text,
      key,
      first: String.fromCodePoint(key.codePointAt(0) ?? 0),
      last: lastLetterOf(key),
      isNumber: /^\d+$/.test(text),
      isCommon: COMMON.has(text),
      node,
      senses: senses.size === 0 ? NOTHING : [...senses],
      phrases: phrases.filter(({ sense }) => sense !== undefined),
      harmless: phrases.filter(({ sense }) => sense === undefined),
    };
  }

  /** @returns where the key ends in the tree */
  #bareWord(word: string, key: string, found: Set<Sense>): Node | undefined {
    const stems: Node[] = [];
    let node: Node | undefined = this.#tree.root;
    for (let at = 0; at < key.length && node !== undefined; at += 1) {
      node = node.next.get(key.charCodeAt(at));
      if (node?.stems !== undefined && at + 1 >= MIN_STEM && at < MAX_WORD) stems.push(node);
    }
    if (node?.words !== undefined || stems.length > 0) collect(word, node, stems, found);
    return node;
  }

  /** Words whose pieces stand apart: "ch ild", "c h i l d". */
  #pieces(words: readonly Word[], masked: ReadonlySet<number>, start: number, from: Node, found: Set<Sense>): void {
    const begin = words[start] as Word;
    let node: Node | undefined = from;
    let joined = begin.text;
    let { last, isCommon: areCommon } = begin;
    let depth = begin.key.length;
    for (let k = 1; k < MAX_PIECES && node !== undefined; k += 1) {
      const piece = words[start + k];
      if (piece === undefined || masked.has(start + k)) return;
      const text = piece.key;
      // A run of one letter may go on behind the border.
      const skipped = piece.first === last ? last.length : 0;
      if (skipped === 0 && !node.next.has(text.charCodeAt(0))) return;
      joined += piece.text;
      if (joined.length > 2 * MAX_WORD) return;
      areCommon &&= piece.isCommon;
      const length = depth + text.length - skipped;
      const isLooked = !areCommon && joined.length >= 3;
      // The stem must reach into the last piece: what comes after it is its ending.
      const shortest = Math.max(joined.length === k + 1 ? MIN_STEM : MIN_SPLIT_STEM, Math.min(depth + 1, length));
      const stems: Node[] = [];
      for (let at = skipped; ; at += 1) {
        const reached = depth + at - skipped;
        if (isLooked && reached >= shortest && reached <= MAX_WORD && node.stems !== undefined) stems.push(node);
        if (at === text.length) break;
        node = node.next.get(text.charCodeAt(at));
        if (node === undefined) break;
      }
      if (isLooked && (node?.words !== undefined || stems.length > 0)) collect(joined, node, stems, found);
      last = piece.last;
      depth = length;
    }
  }

  /** The words that a token is made of, all of it; undefined where it is something else or has no word of a lexicon. */
  #split({ text: token, key: text, node: own }: Word): readonly string[] | undefined {
    if (token.length < 5 || this.#lexicon.tens.has(token)) return undefined;
    if (own?.words !== undefined && fits(own.words, runsOf(token))) return undefined;
    // from[end]: where the last word begins; a run of letters may belong to both words at a border.
    const from: (number | undefined)[] = [];
    const terms: (number | undefined)[] = [0];
    for (let at = 0; at < text.length; at += 1) {
      const known = terms[at];
      if (known === undefined) continue;
      for (const start of at > 0 ? [at, at - 1] : [at]) {
        const least = Math.max(start + 2, at + 1);
        let node: Node | undefined = this.#tree.root;
        for (let end = start + 1; end <= Math.min(start + MAX_WORD, text.length); end += 1) {
          node = node.next.get(text.charCodeAt(end - 1));
          if (node === undefined) break;
          if (end < least || (node.joinable === undefined && node.isFiller !== true)) continue;
          const count = known + (node.joinable === undefined ? 0 : 1);
          if (count <= (terms[end] ?? -1)) continue;
          terms[end] = count;
          from[end] = start;
        }
      }
    }
    if ((terms[text.length] ?? 0) === 0) return undefined;
    const letters = [...token];
    const places = [0];
    for (const run of runsOf(token)) places.push((places.at(-1) ?? 0) + run);
    const words: string[] = [];
    for (let end = text.length; end > 0; ) {
      const start = from[end] ?? 0;
      words.push(letters.slice(places[start], places[end]).join(''));
      end = start > 0 && terms[start] === undefined ? start + 1 : start;
    }
    return words.length > 1 ? words.reverse() : undefined;
  }

  #inside(key: string): readonly Sense[] {
    const inside = new Set<Sense>();
    for (let i = 0; i < key.length; i += 1) {
      let node = this.#tree.root.next.get(key.charCodeAt(i));
      for (let length = 1; length <= MAX_WORD && node !== undefined; length += 1) {
        for (const sense of (length >= 4 && node.joinable) || []) {
          if (!sense.weak && sense.language === 'en') inside.add(sense);
        }
        node = node.next.get(key.charCodeAt(i + length));
      }
    }
    const isOf = (...topics: string[]) => [...inside].some(({ topic }) => topics.includes(topic));
    return isOf('minor', 'youth') && isOf('explicit', 'suggestive') ? [...inside] : [];
  }
}

/** The words of a lexicon by their letters. */
export class WordTree {
  readonly lexicon: Lexicon;
  /** By the letters of their keys. */
  readonly root: Node = { next: new Map() };
  /** Words of scripts without blanks between words. */
  readonly pieces: Node = { next: new Map() };
  /** Words that a phrase or a word in pieces spans at most. */
  readonly reach: number;

  constructor(lexicon: Lexicon) {
    this.lexicon = lexicon;
    this.reach = [...lexicon.phrases.values()]
      .flat()
      .reduce((most, { words }) => Math.max(most, words.length), MAX_PIECES);
    for (const [key, entries] of lexicon.words) this.#add(key, entries).words = entries;
    for (const [key, entries] of lexicon.stems) this.#add(key, entries).stems = entries;
    for (const word of FILLERS) nodeOf(this.root, keyOf(word)).isFiller = true;
    // Numbers may be joined with others, and are no senses.
    for (const word of lexicon.numbers.keys()) {
      if (/^[a-z]{3,}$/.test(word)) nodeOf(this.root, keyOf(word)).joinable ??= [];
    }
    for (const [piece, senses] of lexicon.pieces) nodeOf(this.pieces, piece).joinable = senses;
  }

  #add(key: string, entries: readonly Entry[]): Node {
    const node = nodeOf(this.root, key);
    const isEnglish = entries.some(({ senses }) => senses.some(({ language }) => language === 'en'));
    if (key.length >= (isEnglish || !/^[a-z]/.test(key) ? 3 : 4)) {
      node.joinable = [...(node.joinable ?? []), ...entries.flatMap(({ senses }) => senses)];
    }
    return node;
  }
}

function nodeOf(root: Node, text: string): Node {
  let node = root;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    let next = node.next.get(code);
    if (next === undefined) {
      next = { next: new Map() };
      node.next.set(code, next);
    }
    node = next;
  }
  return node;
}

/** Ranges of the places from which a changed one can be reached; all places if no changes are given. */
function rangesAround(
  changes: readonly number[] | undefined,
  length: number,
  reach: number,
): readonly (readonly [number, number])[] {
  if (changes === undefined || 4 * reach * changes.length > length) return [[0, length]];
  const ranges: [number, number][] = [];
  for (const place of changes) {
    const [from, to] = [Math.max(0, place - reach), Math.min(length, place + reach)];
    const last = ranges.at(-1);
    if (last !== undefined && from <= last[1]) last[1] = to;
    else ranges.push([from, to]);
  }
  return ranges;
}

/** Places of tokens that a harmless phrase covers. A phrase does not go over a comma, and is none before a word for a person. */
function harmless(stream: Stream, words: readonly Word[]): ReadonlySet<number> {
  const masked = new Set<number>();
  for (let i = 0; i < words.length; i += 1) {
    for (const phrase of (words[i] as Word).harmless) {
      if (!isAt(phrase, words, i) || phrase.words.some((_, k) => k > 0 && stream[i + k]?.hard !== false)) continue;
      const behind = i + phrase.words.length;
      if (stream[behind]?.hard === false && words[behind]?.senses.some(isPerson)) continue;
      for (let k = 0; k < phrase.words.length; k += 1) masked.add(i + k);
    }
  }
  return masked;
}

function isPerson({ topic }: Sense): boolean {
  return topic === 'minor' || topic === 'youth';
}

function lastLetterOf(text: string): string {
  const low = text.charCodeAt(text.length - 1);
  return low >= 0xdc00 && low < 0xe000 ? text.slice(-2) : text.slice(-1);
}

/** True where a phrase stands at a place, where its first word does. */
function isAt({ words, isStem }: Phrase, found: readonly Word[], at: number): boolean {
  const last = words.length - 1;
  for (let k = 1; k <= last; k += 1) {
    const key = found[at + k]?.key;
    const { text } = words[k] as Phrase['words'][number];
    if (key !== text && !(isStem && k === last && key?.startsWith(text))) return false;
  }
  return words.every(({ runs }, k) => {
    const word = found[at + k] as Word;
    word.runs ??= runsOf(word.text);
    return areAtLeast(word.runs, runs);
  });
}

function fits(entries: readonly Entry[], runs: readonly number[]): boolean {
  return entries.some((entry) => areAtLeast(runs, entry.runs));
}

function areAtLeast(runs: readonly number[], least: readonly number[]): boolean {
  return least.every((run, i) => (runs[i] ?? 0) >= run);
}

/** Senses of a word by the place where it ends and those of its beginnings. */
function collect(word: string, end: Node | undefined, stems: readonly Node[], found: Set<Sense>): void {
  const runs = runsOf(word);
  for (const entries of [end?.words, ...stems.map((stem) => stem.stems)]) {
    for (const entry of entries ?? []) {
      if (!areAtLeast(runs, entry.runs)) continue;
      for (const sense of entry.senses) found.add(sense);
    }
  }
}
