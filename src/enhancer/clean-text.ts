/** Quotation marks that a text may be wrapped in, opening and closing. */
const QUOTES: readonly (readonly [string, string])[] = [
  ['"', '"'],
  ["'", "'"],
  ['“', '”'],
  ['‘', '’'],
  ['«', '»'],
  ['`', '`'],
];
/** "Enhanced prompt:", "**Description:**" and their like at the start. */
const LABEL =
  /^\W{0,3}(?:(?:the |an? |your |here(?:'s| is| are) )?(?:(?:enhanced|detailed|cinematic|rewritten|revised|improved|final|new|expanded|refined)[ ,]*(?:and )?)*(?:prompt|description|version|idea|caption|output|response|answer|rewrite))\W{0,3}:\W{0,3}\s*/i;
/** "Sure! Here is a cinematic description of the idea:" and its like: a sentence of courtesy that ends in a colon. */
const COURTESY =
  /^(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[^.!?:\n]{0,40}[.!,:]?\s*)?(?:here(?:'s|’s| is| are)\b[^.!?\n]{0,120}:)?\s*/i;
const SENTENCE_END = /[.!?…。！？](?=["'”’»)\]]*(?:\s|$))["'”’»)\]]*/gu;
/** Control tokens that a model wrote out as text. */
const CONTROL = /<\|[a-z_]{1,40}\|>/g;

/**
 * Makes a prompt of what a language model wrote: one paragraph, without courtesies, labels, quotation marks around it or
 * Markdown.
 *
 * @param isWhole whether the model ended the text itself; otherwise the half sentence at its end is cut off, if a whole one stands
 * before it
 * @returns an empty text where nothing is left
 */
export function cleanEnhancement(written: string, isWhole: boolean): string {
  const paragraph = written
    // The end of a character that the last token did not finish.
    .replace(/\uFFFD+$/u, '')
    .replace(CONTROL, ' ')
    .replace(/^\s*(?:[-*#>]|\d+\.)\s+/gm, '')
    .replace(/\*\*|__|`{3}/g, '')
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim();
  const text = withoutQuotes(paragraph.replace(COURTESY, '').replace(LABEL, '').trim());
  return isWhole ? text : withoutHalfSentence(text);
}

/** Marks are taken off in pairs, or the one that a cut text begins with. */
function withoutQuotes(text: string): string {
  for (const [open, close] of QUOTES) {
    if (!text.startsWith(open)) continue;
    const inner = text.slice(open.length);
    if (inner.endsWith(close) && !inner.slice(0, -close.length).includes(close))
      return inner.slice(0, -close.length).trim();
    if (!inner.includes(close)) return inner.trim();
  }
  return text;
}

function withoutHalfSentence(text: string): string {
  const last = [...text.matchAll(SENTENCE_END)].at(-1);
  return last === undefined ? text : text.slice(0, last.index + last[0].length);
}
