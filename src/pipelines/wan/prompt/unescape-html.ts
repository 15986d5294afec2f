import { decodeHTML } from 'entities';

/** A number, or a name of up to 32 characters; the semicolon may be missing. */
const REFERENCE = /&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|[^\t\n\f <&#;]{1,32};?)/g;
/** The characters of Windows-1252 from 0x80 to 0x9F; an unassigned one stays a control character. Node 20's own decoder reads Latin-1 there. */
const WINDOWS_1252 = '€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ';

/**
 * Character references of HTML 5 resolved, those without a semicolon too where HTML has them: "&amp;", "&lt", "&#x1F98A;".
 * The same result as Python's html.unescape, which the reference calls.
 * https://github.com/python/cpython/blob/v3.13.0/Lib/html/__init__.py#L91
 */
export function unescapeHtml(text: string): string {
  return text.replace(REFERENCE, (reference, decimal?: string, hexadecimal?: string) => {
    if (decimal !== undefined) return characterOf(Number.parseInt(decimal, 10));
    if (hexadecimal !== undefined) return characterOf(Number.parseInt(hexadecimal, 16));
    return decodeHTML(reference);
  });
}

function characterOf(code: number): string {
  if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return '\ufffd';
  if (code >= 0x80 && code <= 0x9f) return fromWindows1252(code);
  return isNoCharacter(code) ? '' : String.fromCodePoint(code);
}

/** Controls other than white space, and places that Unicode keeps free: a reference to one vanishes. */
function isNoCharacter(code: number): boolean {
  const isControl = code < 0x20 && !(code >= 0x09 && code <= 0x0d && code !== 0x0b);
  return isControl || code === 0x7f || (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
}

/** The character of Windows-1252 at a code, 0x80 to 0x9F, where Latin-1 and Unicode have a control character. */
export function fromWindows1252(code: number): string {
  return WINDOWS_1252.charAt(code - 0x80);
}
