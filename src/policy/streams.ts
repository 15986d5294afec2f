import {
  GENITIVE,
  HARD,
  joinedLettersOf,
  joinedWordsOf,
  leetPartsOf,
  partsOf,
  type Stream,
  signedWordsOf,
  type Token,
  wordsOf,
} from './normalise.js';

/** A word, and signs around it that are no letters in any reading. */
const PLAIN_WORD = /^([("]*)([\p{L}\p{M}]+)([)".,;:?]*)$/u;

/** Every way to take a text apart. Ways with the same words are one and the same stream. */
export interface Streams {
  readonly words: Stream;
  /** Letters and digits apart, without the digits. */
  readonly letters: Stream;
  readonly signedWords: Stream;
  readonly joinedWords: Stream;
  readonly joinedLetters: Stream;
  readonly parts: Stream;
  readonly leetParts: Stream;
  /** Places where a stream differs from `words`. */
  readonly changes: ReadonlyMap<Stream, readonly number[]>;
}

const WAYS = ['words', 'letters', 'signedWords', 'joinedWords', 'joinedLetters', 'parts', 'leetParts'] as const;

/** What an object counts in `size`. */
const OBJECT = 50;

/** What stands between two blanks. */
interface Chunk {
  /** By the places of WAYS. Ways with the same words are one and the same stream. */
  readonly streams: readonly Stream[];
  /** The first token of each, with `hard`. */
  readonly hardFirst: (Token | undefined)[];
  readonly isOnlySigns: boolean;
  /** A sign that ends a phrase stands behind the last word, by the places of WAYS. */
  readonly endsHard: readonly boolean[];
}

/** Takes texts apart. What stands between two blanks is read once, however often it comes. */
export class StreamReader {
  readonly #chunks = new Map<string, Chunk>();
  #size = 0;

  /** Memory for the chunks that are remembered, in characters. */
  get size(): number {
    return this.#size;
  }

  streamsOf(folded: string): Streams {
    const chunks: Chunk[] = [];
    for (const text of folded.split(/\s+/)) chunks.push(this.#chunkOf(text));
    const distinct = [...new Set(chunks)];
    const built: Stream[] = [];
    for (let way = 0; way < WAYS.length; way += 1) {
      const same = built.findIndex((_, other) => distinct.every(({ streams }) => streams[way] === streams[other]));
      built.push(built[same] ?? streamOf(chunks, way));
    }
    const changes = new Map<Stream, readonly number[]>();
    for (const [way, stream] of built.entries()) {
      if (stream !== built[0] && !changes.has(stream)) changes.set(stream, changesOf(chunks, way));
    }
    return { ...Object.fromEntries(WAYS.map((name, way) => [name, built[way] ?? []])), changes } as unknown as Streams;
  }

  #chunkOf(text: string): Chunk {
    let chunk = this.#chunks.get(text);
    if (chunk === undefined) {
      // A part of a string keeps the whole string in memory; a copy does not.
      const own = Buffer.from(text, 'utf16le').toString('utf16le');
      chunk = readChunk(own);
      this.#chunks.set(own, chunk);
      this.#size += text.length + OBJECT;
    }
    return chunk;
  }
}

function readChunk(text: string): Chunk {
  const plain = PLAIN_WORD.exec(text);
  if (plain !== null) {
    const [, before = '', word = '', behind = ''] = plain;
    const stream = [{ text: word, hard: HARD.test(before) }];
    return {
      streams: WAYS.map(() => stream),
      hardFirst: [],
      isOnlySigns: false,
      endsHard: WAYS.map(() => HARD.test(behind)),
    };
  }
  const parts = partsOf(text);
  const signed = signedWordsOf(text);
  const streams: Stream[] = [];
  for (const stream of [
    wordsOf(text),
    parts.filter((part) => !/^\d/.test(part.text)),
    signed,
    joinedWordsOf(text),
    joinedLettersOf(text),
    parts,
    leetPartsOf(text),
  ]) {
    streams.push(streams.find((other) => areSame(stream, other)) ?? stream);
  }
  const ends = (stream: Stream) => {
    const last = stream.at(-1)?.text ?? '';
    return HARD.test(last === '' ? text : text.slice(text.lastIndexOf(last) + last.length).replace(GENITIVE, ' '));
  };
  return {
    streams,
    hardFirst: [],
    isOnlySigns: parts.length === 0,
    endsHard: WAYS.map((way) => ends(way === 'signedWords' ? signed : parts)),
  };
}

function areSame(a: Stream, b: Stream): boolean {
  return a.length === b.length && a.every(({ text }, i) => text === b[i]?.text);
}

function streamOf(chunks: readonly Chunk[], way: number): Stream {
  const tokens: Token[] = [];
  let isHard = false;
  for (const chunk of chunks) {
    const stream = chunk.streams[way] ?? [];
    for (let i = 0; i < stream.length; i += 1) {
      const token = stream[i] as Token;
      if (i > 0 || !isHard || token.hard) tokens.push(token);
      else {
        const hard = chunk.hardFirst[way] ?? { text: token.text, hard: true };
        chunk.hardFirst[way] = hard;
        tokens.push(hard);
      }
    }
    isHard = chunk.endsHard[way] || (isHard && chunk.isOnlySigns);
  }
  return tokens;
}

function changesOf(chunks: readonly Chunk[], way: number): readonly number[] {
  const changes: number[] = [];
  let place = 0;
  for (const { streams } of chunks) {
    const stream = streams[way] ?? [];
    if (stream !== streams[0]) {
      // A chunk without tokens changes what its neighbours stand beside.
      for (let i = 0; i < Math.max(1, stream.length); i += 1) changes.push(place + i);
    }
    place += stream.length;
  }
  return changes;
}
