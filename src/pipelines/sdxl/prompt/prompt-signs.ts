/**
 * The signs of weighted prompts. The patterns are sticky, all of them, and none goes back over what it scanned: hostile text takes no
 * longer than any other. https://github.com/damian0815/compel/blob/main/src/compel/prompt_parser.py#L538
 */

const WHITE = ' \\t\\n\\r\\v\\f';
const GAP = `[${WHITE}]*`;
const SIGN = '()",.+=-';
const sticky = (pattern: string) => new RegExp(pattern, 'y');
/** A possible weight: `:1.3` or `: 1.3` before a closing parenthesis. */
const WEIGHT_END = `:(${GAP})(?:([^${WHITE}():\\\\]+)${GAP})?(?=\\))`;
const ESCAPED = '\\\\[()",.+=:-]';
/** A `+` or `-` that a word goes on after. */
const HYPHEN = `[+-](?![${WHITE}${SIGN}]|$)`;
/** A word that signs may follow: there is no other sign in it. */
export const WORD = sticky(`(?:${ESCAPED}|${HYPHEN}|[^${WHITE}${SIGN}])+`);
/** The same within parentheses, where it ends before what may be a weight. */
export const INNER_WORD = sticky(`(?:${ESCAPED}|${HYPHEN}|(?!${WEIGHT_END})[^${WHITE}${SIGN}])+`);
/** Signs that follow no word are text. */
export const INNER_SIGN = sticky('[+-]+|[^]');
export const COLON = sticky(WEIGHT_END);
export const SPACES = sticky(GAP);
/** `++` or `--`. */
export const STEPS = sticky('\\++|-+');
/** A number with a sign, which no weight has. */
export const SIGNED = sticky('[+-]+\\.?\\d[\\d.]*');
export const NUMBER = sticky('\\d+\\.\\d*|\\.\\d+|\\d+');
/** The rest of `1.2.3` behind its number. */
export const MORE_NUMBER = sticky('[\\d.]*\\d');
export const ATTEND = sticky(`\\.attend\\(${GAP}(?:\\++|-+|[\\d.]+)${GAP}\\)`);
/** A weight behind a weight. */
export const SECOND_WEIGHT = sticky(`\\d|[+-]+(?=[${WHITE}(),.]|$)`);
/** To the closing quote, which must stand on the same line. */
const QUOTE = '"(?:[^"\\\\\\n\\r]|\\\\"|\\\\(?!"))*"';
export const QUOTED = sticky(QUOTE);
/** Operators of compel that stand where they mean nothing here, looked for before an open parenthesis. */
export const CALL = /(\.(?:swap|attend|and|add|blend)|withLora|useLora)$/;
/** A prompt within an operator's list: in quotes, from an open parenthesis, or one word. */
export const ITEM = sticky(`${QUOTE}|\\(|[^${WHITE}${SIGN}]+`);
export const SEPARATOR = sticky(`${GAP}([,)])${GAP}`);

export function unescaped(text: string): string {
  return text.replace(/\\([()",.+=:-])/g, '$1');
}

export function isNumber(text: string): boolean {
  return /^[+-]?(?:\d+\.?\d*|\.\d+)$/.test(text);
}

export function isSpace(text: string, at: number): boolean {
  return /[ \t\n\r\v\f]/.test(text.charAt(at));
}

/** Enough of a text to recognise it in a message. */
export function short(text: string): string {
  return text.length > 24 ? `${text.slice(0, 24)}…` : text;
}
