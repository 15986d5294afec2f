import {
  ATTEND,
  CALL,
  COLON,
  INNER_SIGN,
  INNER_WORD,
  isNumber,
  isSpace,
  MORE_NUMBER,
  NUMBER,
  QUOTED,
  SECOND_WEIGHT,
  SIGNED,
  SPACES,
  STEPS,
  short,
  unescaped,
  WORD,
} from './prompt-signs.js';
import { PromptSyntaxError } from './prompt-syntax-error.js';

/** Text under one weight. */
export interface Fragment {
  readonly text: string;
  readonly weight: number;
}

/** The fragments of a range of a prompt. */
export interface FragmentsRead {
  readonly fragments: readonly Fragment[];
  /** A sign was read, even one that weighs 1. */
  readonly weighted: boolean;
  /** Places of `:1.3)`, which compel spells `)1.3`. */
  readonly edits: readonly Edit[];
}

/** `from` to `to` of the prompt is `text` to compel. */
export interface Edit {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

/** Weights in use are 0.5 to 1.5; ten times a phrase's pull is noise already. */
export const MAX_WEIGHT = 10;
/** People nest two or three deep. */
const MAX_DEPTH = 32;

/** One `+` or `-`. https://github.com/damian0815/compel/blob/main/src/compel/prompt_parser.py#L298 */
const STEP = { '+': 1.1, '-': 0.9 } as const;

interface Piece {
  readonly text: string;
  /** Weights of the word and of every phrase around it, innermost first. */
  readonly weights: number[];
  readonly at: number;
}

interface Frame {
  readonly at: number;
  readonly closes: ')' | '"';
  /** Its first piece. */
  readonly first: number;
  /** Weight that `:1.3` before its end gives. */
  weight?: number;
}

/**
 * Reads weights: `(phrase)1.3`, `(phrase:1.3)`, `phrase++`, `phrase--`, `"phrase"++`, nested and escaped. Pieces are cut and joined
 * as compel does, because what is joined is lowered together.
 *
 * https://github.com/damian0815/compel/blob/main/src/compel/prompt_parser.py#L536
 *
 * @param inner the range is a phrase in quotes or parentheses, where "." and "," are pieces of their own
 * @throws PromptSyntaxError
 */
export function readFragments(prompt: string, from: number, to: number, inner: boolean): FragmentsRead {
  return new FragmentReader(prompt.slice(from, to), from, inner).read();
}

class FragmentReader {
  readonly #text: string;
  readonly #offset: number;
  readonly #inner: boolean;
  readonly #pieces: Piece[] = [];
  readonly #frames: Frame[] = [];
  readonly #edits: Edit[] = [];
  #weighted = false;
  #at = 0;
  /** The character that a comma was parted from: it may not part in its turn. */
  #parted = -1;

  constructor(text: string, offset: number, inner: boolean) {
    this.#text = text;
    this.#offset = offset;
    this.#inner = inner;
  }

  read(): FragmentsRead {
    for (;;) {
      this.#take(SPACES);
      if (this.#at >= this.#text.length) break;
      this.#readNext(this.#text.charAt(this.#at), this.#frames.at(-1));
    }
    for (const { at, closes } of this.#frames) {
      if (closes === ')') this.#fail(at, '"(" is never closed; close it, or write \\( for the sign itself');
    }
    return { fragments: this.#fuse(), weighted: this.#weighted, edits: this.#edits };
  }

  #readNext(char: string, frame: Frame | undefined): void {
    if (char === '(') this.#open(')');
    // One that closes nothing is text, as in ":)" and "1)".
    else if (char === ')' && frame !== undefined) this.#close(frame);
    else if (char === '"' && frame?.closes === '"') this.#close(frame);
    else if (char === '"' && this.#opensQuote()) this.#open('"');
    else if (char !== ':' || frame?.closes !== ')' || !this.#readColonWeight(frame)) {
      this.#readWord(this.#inner || frame !== undefined);
    }
  }

  #readWord(inner: boolean): void {
    const at = this.#at;
    let word = this.#take(inner ? INNER_WORD : WORD);
    const weight = word === '' ? undefined : this.#readSteps();
    if (weight === undefined && inner && word === '') word = this.#take(INNER_SIGN);
    if (weight === undefined && !inner) {
      this.#at = this.#endOfWord(at);
      word = this.#text.slice(at, this.#at);
    }
    this.#pieces.push({ text: unescaped(word), weights: weight === undefined ? [] : [weight], at });
  }

  #open(closes: Frame['closes']): void {
    const at = this.#at;
    const call = closes === ')' ? CALL.exec(this.#text.slice(Math.max(0, at - 9), at))?.[1] : undefined;
    if (call !== undefined) this.#fail(at - call.length, callProblem(call));
    if (this.#frames.length >= MAX_DEPTH) this.#fail(at, `phrases may be nested ${MAX_DEPTH} deep; take some out`);
    this.#frames.push({ at, closes, first: this.#pieces.length });
    this.#at += 1;
  }

  #close(frame: Frame): void {
    if (frame.closes !== this.#text.charAt(this.#at)) {
      this.#fail(this.#at, '")" closes nothing within the quotes; remove it, or write \\) for the sign itself');
    }
    this.#frames.pop();
    this.#at += 1;
    const signed = frame.weight === undefined ? this.#take(SIGNED) : '';
    if (signed !== '')
      this.#fail(this.#at - signed.length, `the weight "${short(signed)}" has a sign; write 0 to ${MAX_WEIGHT}`);
    const weight = frame.weight ?? this.#readSteps() ?? this.#readNumber() ?? 1;
    if (frame.weight !== undefined && this.#take(SECOND_WEIGHT) !== '') {
      this.#fail(frame.at, 'the phrase has two weights; leave one');
    }
    for (const { weights } of this.#pieces.slice(frame.first)) weights.push(weight);
  }

  /** `++`, `--` or `.attend(…)` right behind a word or phrase. */
  #readSteps(): number | undefined {
    const at = this.#at;
    const attend = this.#take(ATTEND).slice('.attend('.length, -1).trim();
    const signs = attend === '' ? this.#take(STEPS) : attend;
    if (signs === '') return undefined;
    this.#weighted = true;
    const [sign] = signs;
    if (sign !== '+' && sign !== '-') return this.#number(attend, at);
    return STEP[sign] ** signs.length;
  }

  /** The number right behind a phrase. */
  #readNumber(): number | undefined {
    const at = this.#at;
    const digits = this.#take(NUMBER);
    if (digits === '') return undefined;
    const more = this.#take(MORE_NUMBER);
    this.#weighted = true;
    return this.#number(digits + more, at);
  }

  #readColonWeight(frame: Frame): boolean {
    const at = this.#at;
    COLON.lastIndex = at;
    const [all, space, written = ''] = COLON.exec(this.#text) ?? [];
    if (all === undefined || (space !== '' && !isNumber(written))) return false;
    this.#weighted = true;
    this.#at += all.length;
    frame.weight = this.#number(written, at + 1, '; where the ":" is text, write \\:');
    this.#edits.push({ from: this.#offset + at, to: this.#offset + this.#at + 1, text: `)${written}` });
    return true;
  }

  #number(written: string, at: number, hint = ''): number {
    if (!isNumber(written)) this.#fail(at, `the weight "${short(written)}" is not a number, such as 1.2${hint}`);
    const weight = Number(written);
    if (weight >= 0 && weight <= MAX_WEIGHT) return weight;
    return this.#fail(at, `the weight ${short(written)} must be 0 to ${MAX_WEIGHT}${hint}`);
  }

  /** Within a word a quote is text, as for inches; so is one that is not closed. */
  #opensQuote(): boolean {
    const outer = this.#frames.at(-1);
    if (outer !== undefined && this.#frames.some(({ closes }) => closes === '"')) {
      this.#fail(outer.at, '"(" is not closed before the quotes end; close it, or write \\( for the sign itself');
    }
    if (this.#at > 0 && !/[ \t\n\r\v\f(),."+-]/.test(this.#text.charAt(this.#at - 1))) return false;
    QUOTED.lastIndex = this.#at;
    return QUOTED.test(this.#text);
  }

  /** The end of a word without weight: white space, an open parenthesis, or a comma that is followed by neither. */
  #endOfWord(from: number): number {
    const text = this.#text;
    let i = from;
    for (; i < text.length && !isSpace(text, i); i += 1) {
      const char = text.charAt(i);
      if (char === '(') break;
      const last = i + 1 === text.length || isSpace(text, i + 1);
      if (char === '\\' && !last) i += 1;
      else if (char === ',' && !last && i !== this.#parted) {
        this.#parted = i + 1;
        return i + 1;
      }
    }
    return i;
  }

  /** Neighbours of equal weight are one fragment. https://github.com/damian0815/compel/blob/main/src/compel/prompt_parser.py#L349 */
  #fuse(): Fragment[] {
    const groups: { texts: string[]; weight: number }[] = [];
    for (const { text, weights, at } of this.#pieces) {
      // Multiplied from the outside in, like compel: weights that are equal there must be equal here.
      const weight = weights.reduceRight((product, factor) => product * factor, 1);
      if (!(weight <= MAX_WEIGHT)) {
        this.#fail(
          at,
          `the weights of "${short(text)}" multiply to ${weight.toPrecision(3)}, must be <= ${MAX_WEIGHT}`,
        );
      }
      const last = groups.at(-1);
      if (last?.weight === weight) last.texts.push(text);
      else groups.push({ texts: [text], weight });
    }
    if (groups.length === 0) return [{ text: '', weight: 1 }];
    return groups.map(({ texts, weight }) => ({ text: texts.join(' '), weight }));
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [match = ''] = pattern.exec(this.#text) ?? [];
    this.#at += match.length;
    return match;
  }

  #fail(at: number, problem: string): never {
    throw new PromptSyntaxError(this.#offset + at, problem);
  }
}

function callProblem(call: string): string {
  if (call === '.and' || call === '.add' || call === '.blend') {
    return `${call}() must stand around the whole prompt: ("one", "another")${call}()`;
  }
  if (call === '.attend') return '.attend() must follow a word or a phrase, and have a number, + or - in it';
  return `${call}() is not supported here; remove it, or write \\( for the parenthesis itself`;
}
