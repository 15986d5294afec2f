/** Score of an unknown character below that of the worst piece. Both references use 10. */
const UNKNOWN_PENALTY = 10;
/** A character of the vocabulary that no text uses: it marks where a word begins. */
export const WORD_BEGIN = '▁';

/** Strings that can be found as prefixes of a text at any place. */
export class PrefixTable<T> {
  readonly #values = new Map<string, T>();
  /** The longest string that starts with a UTF-16 unit. */
  readonly #longest = new Map<number, number>();

  set(text: string, value: T): void {
    this.#values.set(text, value);
    const first = text.charCodeAt(0);
    this.#longest.set(first, Math.max(this.#longest.get(first) ?? 0, text.length));
  }

  get(text: string): T | undefined {
    return this.#values.get(text);
  }

  /** Shortest first. */
  *prefixes(text: string, at: number): Generator<{ readonly length: number; readonly value: T }> {
    const limit = Math.min(this.#longest.get(text.charCodeAt(at)) ?? 0, text.length - at);
    for (let length = 1; length <= limit; length += 1) {
      const value = this.#values.get(text.slice(at, at + length));
      if (value !== undefined) yield { length, value };
    }
  }
}

export interface UnigramVocabulary {
  /** Pieces of the model and their log probabilities; the place in the list is the id. */
  readonly pieces: readonly { readonly text: string; readonly score: number; readonly isMatched?: boolean }[];
  readonly unknown: number;
  /** Characters without a piece are spelled by the pieces <0x00> to <0xFF>. */
  readonly byteFallback: boolean;
  /** Worst score, if not that of the worst piece. */
  readonly worstScore?: number;
}

/**
 * Cuts text into the pieces whose product of probabilities is the largest: Kudo, arXiv:1804.10959, by Viterbi's algorithm over
 * the places between characters. Scores are added as doubles; of equal cuts the one found first stays.
 * https://github.com/huggingface/tokenizers/blob/v0.22.1/tokenizers/src/models/unigram/model.rs#L228
 */
export class Unigram {
  readonly #table = new PrefixTable<{ readonly id: number; readonly score: number }>();
  readonly #unknown: number;
  readonly #unknownScore: number;
  readonly #bytes: readonly number[] | undefined;
  readonly #all = new Map<string, number>();

  constructor({ pieces, unknown, byteFallback, worstScore }: UnigramVocabulary) {
    let worst = Number.POSITIVE_INFINITY;
    for (const [id, { text, score, isMatched = true }] of pieces.entries()) {
      this.#all.set(text, id);
      if (isMatched && text !== '') this.#table.set(text, { id, score });
      worst = Math.min(worst, score);
    }
    this.#unknown = unknown;
    this.#unknownScore = (worstScore ?? worst) - UNKNOWN_PENALTY;
    const bytes = Array.from({ length: 256 }, (_, byte) => this.#all.get(bytePiece(byte)));
    const isWhole = bytes.every((id) => id !== undefined);
    this.#bytes = byteFallback && isWhole ? bytes.map((id) => id ?? unknown) : undefined;
  }

  /** The id of a piece. */
  idOf(piece: string): number | undefined {
    return this.#all.get(piece);
  }

  encode(text: string): number[] {
    // The best split that ends at each place.
    const scores = new Float64Array(text.length + 1);
    const starts = new Int32Array(text.length + 1).fill(-1);
    const ids = new Int32Array(text.length + 1);
    const offer = (from: number, to: number, id: number, score: number) => {
      const total = (scores[from] ?? 0) + score;
      if ((starts[to] ?? -1) >= 0 && total <= (scores[to] ?? 0)) return;
      scores[to] = total;
      starts[to] = from;
      ids[to] = id;
    };
    for (let at = 0; at < text.length; ) {
      const width = (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
      let hasCharacter = false;
      for (const { length, value } of this.#table.prefixes(text, at)) {
        offer(at, at + length, value.id, value.score);
        hasCharacter ||= length === width;
      }
      if (!hasCharacter) offer(at, at + width, this.#unknown, this.#unknownScore);
      at += width;
    }
    return this.#backwards(text, starts, ids);
  }

  #backwards(text: string, starts: Int32Array, ids: Int32Array): number[] {
    const found: number[] = [];
    let end = text.length;
    while (end > 0) {
      let start = starts[end] ?? 0;
      const id = ids[end] ?? this.#unknown;
      if (id !== this.#unknown) {
        found.push(id);
      } else {
        // Unknown characters in a row become one unknown piece.
        while (start > 0 && ids[start] === this.#unknown) start = starts[start] ?? 0;
        found.push(...this.#unknownIds(text.slice(start, end)).reverse());
      }
      end = start;
    }
    return found.reverse();
  }

  #unknownIds(text: string): number[] {
    const whole = this.#table.get(text);
    if (whole !== undefined) return [whole.id];
    const bytes = this.#bytes;
    if (bytes === undefined) return [this.#unknown];
    return Array.from(new TextEncoder().encode(text), (byte) => bytes[byte] ?? this.#unknown);
  }
}

function bytePiece(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}
