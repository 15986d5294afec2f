/** A stretch of a text: the name of an embedding, or what stands between names. */
export type NamePart =
  | { readonly kind: 'name'; readonly name: string; readonly text: string }
  | { readonly kind: 'text'; readonly text: string };

/** ComfyUI's sign before a name: `embedding:NAME`. */
const SIGN = 'embedding:';
/** Words, and single other characters: a name begins at one of them. */
const BEGINNINGS = /[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const BEGINNING = new RegExp(BEGINNINGS.source, 'u');
const WORD_AHEAD = /[\p{L}\p{N}_]/uy;

/** Names that begin with the same word or sign. */
interface Group {
  /** By their spelling in lower case: those that differ in capitals alone. */
  readonly names: Map<string, string[]>;
  /** Their lengths, the longest first. */
  lengths: readonly number[];
}

/** The names of embeddings, to be found in texts: as whole words, in capitals or not. */
export class EmbeddingNames {
  /** By their first word or sign, in lower case. */
  readonly #groups = new Map<string, Group>();

  constructor(names: Iterable<string>) {
    for (const name of names) {
      const plain = name.toLowerCase();
      const [beginning] = BEGINNING.exec(plain) ?? [];
      if (beginning === undefined) continue;
      const group = this.#groups.get(beginning) ?? { names: new Map<string, string[]>(), lengths: [] };
      this.#groups.set(beginning, group);
      const alike = group.names.get(plain);
      if (alike === undefined) group.names.set(plain, [name]);
      else alike.push(name);
    }
    for (const group of this.#groups.values()) {
      const lengths = new Set(Array.from(group.names.values(), ([name = '']) => name.length));
      group.lengths = [...lengths].sort((one, other) => other - one);
    }
  }

  /** The names that a text has, each once. */
  in(text: string): readonly string[] {
    return [...new Set(this.split(text).flatMap((part) => (part.kind === 'name' ? [part.name] : [])))];
  }

  /**
   * Splits a text at the names in it. Of several at one place the longest counts, of those that differ in capitals alone the one that
   * is spelled as the text. Linear in the text, times the different lengths of names that share their first word.
   */
  split(text: string): readonly NamePart[] {
    const parts: NamePart[] = [];
    let end = 0;
    for (const { 0: beginning, index } of text.matchAll(BEGINNINGS)) {
      if (index < end) continue;
      const name = this.#nameAt(text, index, beginning);
      if (name === undefined) continue;
      if (index > end) parts.push({ kind: 'text', text: text.slice(end, index) });
      end = index + name.length;
      parts.push({ kind: 'name', name, text: text.slice(index, end) });
    }
    if (end < text.length || parts.length === 0) parts.push({ kind: 'text', text: text.slice(end) });
    return parts;
  }

  #nameAt(text: string, index: number, beginning: string): string | undefined {
    const group = this.#groups.get(beginning.toLowerCase());
    for (const length of group?.lengths ?? []) {
      const written = text.slice(index, index + length);
      const alike = group?.names.get(written.toLowerCase());
      if (alike === undefined || (/[\p{L}\p{N}_]$/u.test(written) && isWord(text, index + length))) continue;
      return alike.find((name) => name === written) ?? alike[0];
    }
    return undefined;
  }
}

/**
 * Takes ComfyUI's signs out of a text: `embedding:NAME` becomes `NAME`.
 * @returns the text, and what stands behind a sign and is no name
 */
export function takeEmbeddingSigns(
  text: string,
  names: EmbeddingNames,
): { readonly text: string; readonly unknown: readonly string[] } {
  const kept: string[] = [];
  const unknown: string[] = [];
  let at = 0;
  for (const { index } of text.matchAll(/\bembedding:(?=\S)/gi)) {
    const after = index + SIGN.length;
    kept.push(text.slice(at, index));
    at = after;
    const [word = ''] = /^[^\s,()]+/.exec(text.slice(after, after + MAX_SHOWN)) ?? [];
    const [first] = names.split(text.slice(after, after + MAX_SHOWN));
    if (first?.kind !== 'name') unknown.push(word);
  }
  return { text: kept.join('') + text.slice(at), unknown };
}

/** Characters behind a sign that are looked at for a name: a path of a folder is no longer. */
const MAX_SHOWN = 1024;

function isWord(text: string, at: number): boolean {
  WORD_AHEAD.lastIndex = at;
  return WORD_AHEAD.test(text);
}
