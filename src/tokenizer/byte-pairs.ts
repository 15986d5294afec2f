/** Number of words whose pieces are cached; prompts repeat words. */
const CACHE_ENTRIES = 10_000;
/** Longer words are rare and would fill the cache. */
const CACHED_WORD_CHARACTERS = 64;

/** The printable character that stands for each byte. https://github.com/openai/gpt-2/blob/master/src/encoder.py#L9 */
export const byteCharacters: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  if (printable) return String.fromCharCode(byte);
  // The others follow from 256 on, in order: 0..0x20, 0x7f..0xa0, 0xad.
  const order = byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7f + 0x21 : 0x43;
  return String.fromCharCode(256 + order);
});

/** Merges byte-level characters to pieces, lowest rank first, leftmost first among equals. */
export class BytePairs {
  readonly #ranks: ReadonlyMap<string, number>;
  readonly #cache = new Map<string, readonly string[]>();

  /** @param merges pairs "a b", the first merged first */
  constructor(merges: readonly string[]) {
    this.#ranks = new Map(merges.map((pair, rank) => [pair, rank]));
  }

  /** @param symbols the word, a byte character each, the last with the end-of-word suffix */
  merge(symbols: readonly string[]): readonly string[] {
    const word = symbols.join('');
    const known = this.#cache.get(word);
    if (known !== undefined) return known;
    const pieces = this.#merge(symbols);
    if (word.length <= CACHED_WORD_CHARACTERS) {
      if (this.#cache.size >= CACHE_ENTRIES) this.#cache.clear();
      this.#cache.set(word, pieces);
    }
    return pieces;
  }

  // A linked list of symbols and a heap of candidate pairs: a word of 16 KB takes n log n, not n squared.
  #merge(symbols: readonly string[]): readonly string[] {
    const texts = [...symbols];
    const next = texts.map((_, i) => i + 1);
    const previous = texts.map((_, i) => i - 1);
    const heap = new Heap();
    const offer = (left: number): void => {
      const right = next[left] ?? texts.length;
      if (left < 0 || right >= texts.length) return;
      const rank = this.#ranks.get(`${texts[left]} ${texts[right]}`);
      if (rank !== undefined) heap.push({ rank, left, text: `${texts[left]} ${texts[right]}` });
    };
    for (const i of texts.keys()) offer(i);
    for (let pair = heap.pop(); pair !== undefined; pair = heap.pop()) {
      const { left, text } = pair;
      const right = next[left] ?? texts.length;
      // One of the two symbols was merged with another neighbour since.
      if (`${texts[left]} ${texts[right]}` !== text) continue;
      texts[left] = `${texts[left]}${texts[right]}`;
      texts[right] = '';
      next[left] = next[right] ?? texts.length;
      const after = next[left] ?? texts.length;
      if (after < texts.length) previous[after] = left;
      offer(previous[left] ?? -1);
      offer(left);
    }
    return texts.filter((text) => text !== '');
  }
}

interface Pair {
  readonly rank: number;
  readonly left: number;
  /** Both symbols. They show if the pair still exists. */
  readonly text: string;
}

/** A binary heap, lowest rank first, then leftmost. */
class Heap {
  readonly #pairs: Pair[] = [];

  push(pair: Pair): void {
    let i = this.#pairs.push(pair) - 1;
    while (i > 0 && this.#before(i, (i - 1) >> 1)) i = this.#swap(i, (i - 1) >> 1);
  }

  pop(): Pair | undefined {
    const first = this.#pairs[0];
    const last = this.#pairs.pop();
    if (last === undefined || this.#pairs.length === 0) return first;
    this.#pairs[0] = last;
    for (let i = 0; ; ) {
      const [left, right] = [2 * i + 1, 2 * i + 2];
      const child = right < this.#pairs.length && this.#before(right, left) ? right : left;
      if (child >= this.#pairs.length || !this.#before(child, i)) return first;
      i = this.#swap(i, child);
    }
  }

  #before(i: number, j: number): boolean {
    const [a, b] = [this.#pairs[i], this.#pairs[j]];
    if (a === undefined || b === undefined) return false;
    return a.rank < b.rank || (a.rank === b.rank && a.left < b.left);
  }

  #swap(i: number, j: number): number {
    const [a, b] = [this.#pairs[i], this.#pairs[j]];
    if (a !== undefined && b !== undefined) [this.#pairs[i], this.#pairs[j]] = [b, a];
    return j;
  }
}
