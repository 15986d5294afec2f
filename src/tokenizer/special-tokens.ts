/** A token that is found in a text before any other processing. */
export interface SpecialToken {
  readonly id: number;
  readonly content: string;
  /** The token includes the white space before it. */
  readonly lstrip?: boolean;
  /** The token includes the white space after it. */
  readonly rstrip?: boolean;
  /** The token matches only next to characters other than letters, digits and underscores. */
  readonly single_word?: boolean;
}

export type Part = { readonly kind: 'token'; readonly id: number } | { readonly kind: 'text'; readonly text: string };

/** Splits a text at its special tokens; of several at one place the longest wins. */
export function splitAtTokens(text: string, tokens: readonly SpecialToken[]): readonly Part[] {
  if (tokens.length === 0) return [{ kind: 'text', text }];
  const byContent = new Map(tokens.map((token) => [token.content, token.id]));
  const parts: Part[] = [];
  let end = 0;
  for (const match of text.matchAll(patternOf(tokens))) {
    if (match.index > end) parts.push({ kind: 'text', text: text.slice(end, match.index) });
    const content = match.slice(1).find((group) => group !== undefined) ?? '';
    parts.push({ kind: 'token', id: byContent.get(content) ?? 0 });
    end = match.index + match[0].length;
  }
  if (end < text.length) parts.push({ kind: 'text', text: text.slice(end) });
  return parts;
}

const patterns = new WeakMap<readonly SpecialToken[], RegExp>();

function patternOf(tokens: readonly SpecialToken[]): RegExp {
  let pattern = patterns.get(tokens);
  if (pattern === undefined) {
    const sorted = [...tokens].sort((a, b) => b.content.length - a.content.length);
    pattern = new RegExp(sorted.map(alternative).join('|'), 'gu');
    patterns.set(tokens, pattern);
  }
  return pattern;
}

function alternative({ content, lstrip, rstrip, single_word }: SpecialToken): string {
  const literal = `(${content.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')})`;
  const word = single_word ? `(?<![\\p{L}\\p{N}_])${literal}(?![\\p{L}\\p{N}_])` : literal;
  return `${lstrip ? '\\p{White_Space}*' : ''}${word}${rstrip ? '\\p{White_Space}*' : ''}`;
}
