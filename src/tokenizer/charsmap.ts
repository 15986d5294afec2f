const decoder = new TextDecoder();
const encoder = new TextEncoder();

/**
 * Longest key in bytes: rules have a word or two, and a hostile trie must not make every place walk the whole text.
 */
const MAX_KEY_BYTES = 512;
/** A longer cluster is not looked up as a whole. */
const MAX_CLUSTER_BYTES = 5;

export interface CharsmapMatch {
  /** Number of bytes that the rule replaces. */
  readonly length: number;
  readonly replacement: string;
}

/**
 * SentencePiece's precompiled normalisation: a double-array trie (darts-clone) from UTF-8 bytes to places in a list of
 * replacements that end in NUL. Its file form is the trie's length, the trie, the list.
 * https://github.com/google/sentencepiece/blob/v0.2.0/src/normalizer.cc#L268
 */
export class Charsmap {
  readonly #units: Uint32Array;
  readonly #replacements: Uint8Array;
  readonly #texts = new Map<number, string>();

  /** @throws Error for bytes that are no charsmap. The work for hostile bytes is bounded */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const trieBytes = bytes.length >= 4 ? view.getUint32(0, true) : 0;
    if (trieBytes === 0 || trieBytes % 4 !== 0 || 4 + trieBytes > bytes.length) {
      throw new Error(`a charsmap of ${bytes.length} bytes cannot hold a trie of ${trieBytes}`);
    }
    this.#units = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#replacements = bytes.subarray(4 + trieBytes);
  }

  /** The rules whose key the text has at a place, shortest key first. */
  *matches(text: Uint8Array, at: number): Generator<CharsmapMatch> {
    const root = this.#units[0] ?? 0;
    let node = offsetOf(root);
    const end = Math.min(text.length, at + MAX_KEY_BYTES);
    for (let i = at; i < end; i += 1) {
      const byte = text[i] ?? 0;
      node ^= byte;
      const unit = this.#units[node];
      // A unit's label is its byte; a leaf's value has the top bit set, so that it is no byte's label.
      if (unit === undefined || (unit & 0x800000ff) >>> 0 !== byte) return;
      node ^= offsetOf(unit);
      const hasLeaf = ((unit >>> 8) & 1) === 1;
      if (hasLeaf) yield { length: i + 1 - at, replacement: this.#textAt((this.#units[node] ?? 0) & 0x7fffffff) };
    }
  }

  /** The rule with the longest key, as SentencePiece itself applies them. */
  longest(text: Uint8Array, at: number): CharsmapMatch | undefined {
    let last: CharsmapMatch | undefined;
    for (const match of this.matches(text, at)) last = match;
    return last;
  }

  /**
   * A text normalised as Hugging Face's `tokenizers` does: a cluster of up to five bytes by the shortest rule that it begins
   * with, which replaces all of it; else each character by the shortest rule that it begins with.
   * https://github.com/huggingface/tokenizers/blob/v0.22.1/tokenizers/src/normalizers/precompiled.rs#L31
   */
  normalizeClusters(text: string): string {
    let result = '';
    for (const { segment } of clusters.segment(text)) {
      const bytes = encoder.encode(segment);
      const whole = bytes.length <= MAX_CLUSTER_BYTES ? this.#shortest(bytes) : undefined;
      if (whole !== undefined) result += whole;
      else for (const character of segment) result += this.#shortest(encoder.encode(character)) ?? character;
    }
    return result;
  }

  #shortest(bytes: Uint8Array): string | undefined {
    for (const { replacement } of this.matches(bytes, 0)) return replacement;
    return undefined;
  }

  #textAt(offset: number): string {
    let text = this.#texts.get(offset);
    if (text === undefined) {
      const end = this.#replacements.indexOf(0, offset);
      text = decoder.decode(this.#replacements.subarray(offset, end < 0 ? undefined : end));
      this.#texts.set(offset, text);
    }
    return text;
  }
}

const clusters = new Intl.Segmenter('und', { granularity: 'grapheme' });

function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}
