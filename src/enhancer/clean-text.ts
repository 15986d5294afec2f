/** Pairs of quotation marks that may wrap a text. */
const QUOTES: readonly (readonly [string, string])[] = [
  ['"', '"'],
  ["'", "'"],
  ['“', '”'],
  ['‘', '’'],
  ['«', '»'],
  ['`', '`'],
];
/** Labels at the start, such as "Enhanced prompt:" or "**Description:**". */
const LABEL =
  /^\W{0,3}(?:(?:the |an? |your |here(?:'s| is| are) )?(?:(?:enhanced|detailed|cinematic|rewritten|revised|improved|final|new|expanded|refined)[ ,]*(?:and )?)*(?:prompt|description|version|idea|caption|output|response|answer|rewrite))\W{0,3}:\W{0,3}\s*/i;
/** A courtesy at the start that ends in a colon, such as "Sure! Here is a cinematic description of the idea:". */
const COURTESY =
  /^(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[^.!?:\n]{0,40}[.!,:]?\s*)?(?:here(?:'s|’s| is| are)\b[^.!?\n]{0,120}:)?\s*/i;
const SENTENCE_END = /[.!?…。！？](?=["'”’»)\]]*(?:\s|$))["'”’»)\]]*/gu;
/** Control tokens that the model wrote as text. */
const CONTROL = /<\|[a-z_]{1,40}\|>/g;

/**
 * Turns the output of a language model into a prompt: one paragraph without courtesies, labels, outer quotation marks
 * and Markdown.
 *
 * @param isWhole true if the model ended the text itself. Otherwise a half sentence at the end is cut, if a whole one
 * stands before it
 * @returns an empty string if nothing is left
 */
export function cleanEnhancement(written: string, isWhole: boolean): string {
  const paragraph = written
    // Remove the bytes of a character that the last token did not complete.
    .replace(/\uFFFD+$/u, '')
    .replace(CONTROL, ' ')
    .replace(/^\s*(?:[-*#>]|\d+\.)\s+/gm, '')
    .replace(/\*\*|__|`{3}/g, '')
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim();
  const text = withoutQuotes(paragraph.replace(COURTESY, '').replace(LABEL, '').trim());
  return isWhole ? text : withoutHalfSentence(text);
}

/** Removes quotation marks in pairs, or a single opening one of a cut text. */
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
