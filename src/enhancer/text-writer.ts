import type { LlamaModel } from './llama.js';

/** Turns tokens into text. Unfinished parts, half a character or half a stop text, are held back. */
export class TextWriter {
  readonly #model: LlamaModel;
  readonly #stops: readonly string[];
  readonly #written: number[] = [];
  #pending: number[] = [];
  text = '';
  hasStopped = false;

  constructor(model: LlamaModel, stops: readonly string[]) {
    this.#model = model;
    this.#stops = stops;
  }

  /** Tokens so far. */
  get tokens(): number {
    return this.#written.length;
  }

  /** @returns the text that the token adds; empty while a character is incomplete */
  add(token: number): string {
    const before = this.#written.slice(0, this.#written.length - this.#pending.length).slice(-8);
    this.#written.push(token);
    this.#pending.push(token);
    const piece = this.#model.detokenize(this.#pending, false, before);
    // A character has up to four bytes, each possibly a token of its own.
    if (piece.endsWith('\uFFFD') && this.#pending.length < 4) return '';
    this.#pending = [];
    const from = this.text.length;
    const text = this.text + piece;
    // A text that has not begun cannot have ended.
    const start = text.length - text.trimStart().length;
    const ends = this.#stops
      .map((stop) => text.indexOf(stop, Math.max(start, from - stop.length)))
      .filter((at) => at >= 0);
    if (ends.length === 0) {
      this.text = text;
      return piece;
    }
    this.hasStopped = true;
    this.text = text.slice(0, Math.min(...ends));
    return this.text.slice(from);
  }
}
