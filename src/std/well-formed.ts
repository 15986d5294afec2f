/**
 * A text that every encoder takes: lone halves of surrogate pairs become U+FFFD, and a long text is cut between characters.
 * @param maxCharacters in UTF-16 units. Omitted: no bound
 */
export function wellFormed(text: string, maxCharacters = Number.POSITIVE_INFINITY): string {
  const cut = text.length > maxCharacters ? `${text.slice(0, maxCharacters - 1)}…` : text;
  return cut.replace(/\p{Surrogate}/gu, '\uFFFD');
}
