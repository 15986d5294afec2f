import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { Charsmap } from './charsmap.js';
import { PrefixTable, Unigram, WORD_BEGIN } from './unigram.js';
import { MAX_TOKENS } from './vocabulary-schema.js';

/** SentencePiece trains pieces of up to 16 characters; names of special tokens are longer. */
const MAX_PIECE_CHARACTERS = 256;

/** Kinds of pieces. https://github.com/google/sentencepiece/blob/v0.2.0/src/sentencepiece_model.proto#L295 */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;
const BYTE = 6;
const UNIGRAM_MODEL = 1;

export interface SentencePieceModel {
  readonly unigram: Unigram;
  /** Control tokens and the unknown token, by name. They match no text. */
  readonly special: readonly { readonly id: number; readonly content: string }[];
  readonly pieces: readonly string[];
  /** Normalises a text before it is split into pieces: charsmap, white space, and the mark at the start of words. */
  normalize(text: string): string;
}

interface Piece {
  text: string;
  score: number;
  kind: number;
}

interface Spec {
  readonly pieces: Piece[];
  modelType: number;
  whitespaceIsSuffix: boolean;
  byteFallback: boolean;
  charsmap: Uint8Array;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
  escapeWhitespaces: boolean;
}

/**
 * Reads a `spiece.model`: SentencePiece's protobuf of a unigram model.
 * @throws Error, one sentence without the file's name, for other data and for options that are not supported here
 */
export function readSentencePieceModel(bytes: Uint8Array): SentencePieceModel {
  const spec = readSpec(bytes);
  if (spec.modelType !== UNIGRAM_MODEL) throw new Error(`is of model type ${spec.modelType}, not unigram (1)`);
  if (spec.whitespaceIsSuffix) throw new Error('marks the end of words, not their beginning');
  const unknown = spec.pieces.findIndex(({ kind }) => kind === UNKNOWN);
  if (unknown < 0) throw new Error('has no unknown piece');
  const normal = spec.pieces.filter(({ kind }) => kind === NORMAL).map(({ score }) => score);
  const range = normal.reduce(({ worst, best }, x) => ({ worst: Math.min(worst, x), best: Math.max(best, x) }), {
    worst: Number.POSITIVE_INFINITY,
    best: Number.NEGATIVE_INFINITY,
  });
  if (normal.length === 0) throw new Error('has no pieces');
  const userDefined = new PrefixTable<true>();
  for (const { kind, text } of spec.pieces) if (kind === USER_DEFINED) userDefined.set(text, true);
  return {
    unigram: new Unigram({
      pieces: spec.pieces.map(({ text, score, kind }) => ({
        text,
        // User-defined pieces always win: https://github.com/google/sentencepiece/blob/v0.2.0/src/unigram_model.cc#L932
        score: kind === USER_DEFINED ? Buffer.byteLength(text) * range.best - 0.1 : score,
        isMatched: kind === NORMAL || kind === USER_DEFINED,
      })),
      unknown,
      byteFallback: spec.byteFallback,
      worstScore: range.worst,
    }),
    special: spec.pieces.flatMap(({ text, kind }, id) =>
      kind === CONTROL || kind === UNKNOWN ? [{ id, content: text }] : [],
    ),
    pieces: spec.pieces.map(({ text }) => text),
    normalize: createNormalize(spec, userDefined),
  };
}

/** https://github.com/google/sentencepiece/blob/v0.2.0/src/normalizer.cc#L60 */
function createNormalize(spec: Spec, userDefined: PrefixTable<true>): (text: string) => string {
  const charsmap = spec.charsmap.length > 0 ? new Charsmap(spec.charsmap) : undefined;
  const space = spec.escapeWhitespaces ? WORD_BEGIN : ' ';
  return (text) => {
    if (text === '') return '';
    let result = '';
    let isAfterSpace = spec.removeExtraWhitespaces;
    for (const replaced of replacements(text, charsmap, userDefined)) {
      const kept = isAfterSpace ? replaced.replace(/^ +/, '') : replaced;
      if (kept === '') continue;
      result += kept;
      isAfterSpace = spec.removeExtraWhitespaces && kept.endsWith(' ');
    }
    if (spec.removeExtraWhitespaces) {
      result = result.replace(spec.escapeWhitespaces ? TRAILING_MARKS : TRAILING_SPACES, '');
      if (result === '') return '';
    }
    return (spec.addDummyPrefix ? space : '') + result.replaceAll(' ', space);
  };
}

const TRAILING_SPACES = / +$/;
/** A mark in the text itself is white space at this point. */
const TRAILING_MARKS = /[ ▁]+$/;

/** A text character by character, or by the rules of the charsmap that fit; pieces of the user's own stay as they are. */
function* replacements(
  text: string,
  charsmap: Charsmap | undefined,
  userDefined: PrefixTable<true>,
): Generator<string> {
  const bytes = new TextEncoder().encode(text);
  for (let [at, byte] = [0, 0]; at < text.length; ) {
    let own = 0;
    for (const { length } of userDefined.prefixes(text, at)) own = length;
    const rule = own > 0 ? undefined : charsmap?.longest(bytes, byte);
    const end = byte + (rule?.length ?? 0);
    const from = at;
    do {
      const character = text.codePointAt(at) ?? 0;
      at += character > 0xffff ? 2 : 1;
      byte += character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    } while (byte < end || at < from + own);
    yield rule?.replacement ?? text.slice(from, at);
  }
}

/** https://github.com/google/sentencepiece/blob/v0.2.0/src/sentencepiece_model.proto */
function readSpec(bytes: Uint8Array): Spec {
  const spec: Spec = {
    pieces: [],
    modelType: UNIGRAM_MODEL,
    whitespaceIsSuffix: false,
    byteFallback: false,
    charsmap: new Uint8Array(),
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    escapeWhitespaces: true,
  };
  const reader = new BinaryReader(bytes);
  try {
    readFields(reader, reader.len, {
      1: () => spec.pieces.push(readPiece(reader, spec.pieces.length)),
      2: () =>
        readFields(reader, reader.uint32() + reader.pos, {
          3: () => {
            spec.modelType = reader.int32();
          },
          24: () => {
            spec.whitespaceIsSuffix = reader.bool();
          },
          35: () => {
            spec.byteFallback = reader.bool();
          },
        }),
      3: () =>
        readFields(reader, reader.uint32() + reader.pos, {
          2: () => {
            spec.charsmap = reader.bytes();
          },
          3: () => {
            spec.addDummyPrefix = reader.bool();
          },
          4: () => {
            spec.removeExtraWhitespaces = reader.bool();
          },
          5: () => {
            spec.escapeWhitespaces = reader.bool();
          },
        }),
    });
  } catch (error) {
    throw new Error(`is no SentencePiece model: ${error instanceof Error ? error.message : String(error)}`);
  }
  return spec;
}

function readPiece(reader: BinaryReader, id: number): Piece {
  if (id >= MAX_TOKENS) throw new Error(`more than ${MAX_TOKENS} pieces`);
  const piece: Piece = { text: '', score: 0, kind: NORMAL };
  readFields(reader, reader.uint32() + reader.pos, {
    1: () => {
      piece.text = reader.string();
    },
    2: () => {
      piece.score = reader.float();
    },
    3: () => {
      piece.kind = reader.int32();
    },
  });
  const isKnown = [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE].includes(piece.kind);
  if (!isKnown || piece.text === '' || piece.text.length > MAX_PIECE_CHARACTERS || !Number.isFinite(piece.score)) {
    throw new Error(`piece ${id} has no kind, text of 1 to ${MAX_PIECE_CHARACTERS} characters and finite score`);
  }
  return piece;
}

/** Reads the fields of a message up to a place and skips unknown ones. */
function readFields(reader: BinaryReader, end: number, fields: Readonly<Record<number, () => void>>): void {
  if (end > reader.len) throw new Error('a message ends outside the file');
  while (reader.pos < end) {
    const [field, type] = reader.tag();
    const read = fields[field];
    if (read === undefined || type === WireType.StartGroup) reader.skip(type, field);
    else read();
  }
  if (reader.pos !== end) throw new Error('a message does not end where it says');
}
