/** A stretch of a text: the name of an embedding, or what stands between names. */
export type NamePart =
  | { readonly kind: 'name'; readonly name: string; readonly text: string }
  | { readonly kind: 'text'; readonly text: string };

/** ComfyUI's sign before a name: `embedding:NAME`. */
const SIGN = 'embedding:';
/** Words, and single other characters: a name begins at one of them. */
const BEGINNINGS = /[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const WORD_AHEAD = /[\p{L}\p{N}_]/uy;

/** The names of embeddings, to be found in texts: as whole words, in capitals or not. */
export class EmbeddingNames {
  /** By their first word or sign, in lower case: the longest first. */
  readonly #byBeginning = new Map<string, string[]>();

  constructor(names: Iterable<string>) {
    for (const name of names) {
      const [beginning] = name.toLowerCase().match(BEGINNINGS) ?? [];
      if (beginning === undefined) continue;
      const others = this.#byBeginning.get(beginning) ?? [];
      this.#byBeginning.set(
        beginning,
        [...others, name].sort((a, b) => b.length - a.length),
      );
    }
  }

  /** The names that a text has, each once. */
  in(text: string): readonly string[] {
    return [...new Set(this.split(text).flatMap((part) => (part.kind === 'name' ? [part.name] : [])))];
  }

  /**
   * Splits a text at the names in it. Of several at one place the longest counts, of those that differ in capitals alone the one that
   * is spelled as the text. Linear in the text, as long as few names share their first word.
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
    const candidates = this.#byBeginning.get(beginning.toLowerCase()) ?? [];
    const fits = candidates.filter((name) => {
      if (text.slice(index, index + name.length).toLowerCase() !== name.toLowerCase()) return false;
      return !/[\p{L}\p{N}_]$/u.test(name) || !isWord(text, index + name.length);
    });
    const [longest] = fits;
    if (longest === undefined) return undefined;
    return fits.find((name) => text.startsWith(name, index) && name.length === longest.length) ?? longest;
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
