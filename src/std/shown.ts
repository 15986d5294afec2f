const MAX_CHARACTERS = 80;

/** A text out of a file that may be hostile, fit for a message: quotes and control characters are escaped, a long one is cut. */
export function shown(text: string): string {
  const cut = text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)}…` : text;
  return JSON.stringify(cut).slice(1, -1);
}
