import { decodeHTMLStrict } from 'entities';
import { fromWindows1252, unescapeHtml } from './unescape-html.js';

/** Repairs are made again until nothing changes. A text written to need more would hold the server up. */
const MAX_ROUNDS = 50;

const LIGATURES: Readonly<Record<string, string>> = {
  Ĳ: 'IJ',
  ĳ: 'ij',
  ŉ: 'ʼn',
  Ǳ: 'DZ',
  ǲ: 'Dz',
  ǳ: 'dz',
  Ǆ: 'DŽ',
  ǅ: 'Dž',
  ǆ: 'dž',
  Ǉ: 'LJ',
  ǈ: 'Lj',
  ǉ: 'lj',
  Ǌ: 'NJ',
  ǋ: 'Nj',
  ǌ: 'nj',
  ﬀ: 'ff',
  ﬁ: 'fi',
  ﬂ: 'fl',
  ﬃ: 'ffi',
  ﬄ: 'ffl',
  ﬅ: 'ſt',
  ﬆ: 'st',
};

const HTML_ENTITY = /&#?[0-9A-Za-z]{1,24};/g;
const C1_CONTROL = /[\u0080-\u009f]/g;
const LIGATURE = new RegExp(`[${Object.keys(LIGATURES).join('')}]`, 'g');
const OTHER_WIDTH = /[\u3000\uff01-\uffef]/g;
const SINGLE_QUOTE = /[\u02bc\u2018-\u201b]/g;
const DOUBLE_QUOTE = /[\u201c-\u201f]/g;
const LINE_BREAK = /\r\n|[\r\u2028\u2029\u0085]/g;
const LONE_SURROGATE = /\p{Surrogate}/gu;
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences of terminals begin with one
const TERMINAL_ESCAPE = /\u001b\[[\p{Nd};]*[a-zA-Z]/gu;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
const CONTROL = /[\u0000-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;

/**
 * Text with what programs commonly do to it undone, as ftfy.fix_text 6.3 does: character references, ligatures, full and half
 * width, curly quotes, line breaks, control characters; then composed (NFC).
 *
 * Not done: ftfy also guesses where UTF-8 was read as another encoding ("Ã©" for "é"), by a table of how odd characters look
 * together. Such text stays as it is.
 * https://github.com/rspeer/python-ftfy/blob/v6.3.1/ftfy/__init__.py#L321
 */
export function fixText(text: string): string {
  let hasTags = false;
  return text.replace(/[^\n]*\n|[^\n]+/g, (line) => {
    // A "<" may begin HTML, in which references are meant.
    hasTags ||= line.includes('<');
    return fixLine(line, !hasTags);
  });
}

function fixLine(line: string, resolvesReferences: boolean): string {
  let text = line;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const before = text;
    if (resolvesReferences) text = text.replace(HTML_ENTITY, entity);
    text = text
      .replace(C1_CONTROL, (character) => fromWindows1252(character.charCodeAt(0)))
      .replace(LIGATURE, (character) => LIGATURES[character] ?? character)
      .replace(OTHER_WIDTH, (character) => character.normalize('NFKC'))
      .replace(DOUBLE_QUOTE, '"')
      .replace(SINGLE_QUOTE, "'")
      .replace(LINE_BREAK, '\n')
      .replace(LONE_SURROGATE, '\ufffd')
      .replace(TERMINAL_ESCAPE, '')
      .replace(CONTROL, '')
      .normalize('NFC');
    if (text === before) break;
  }
  return text;
}

/** A reference with its semicolon, also where the name of a small letter was written all in capitals: "&EACUTE;". */
function entity(reference: string): string {
  if (reference.startsWith('&#')) {
    const character = unescapeHtml(reference);
    return character.includes(';') ? reference : character;
  }
  const character = decodeHTMLStrict(reference);
  if (character !== reference) return character;
  const small = reference.toLowerCase();
  const isCapitals = reference === reference.toUpperCase() && unescapeHtml(reference) === reference;
  const named = decodeHTMLStrict(small);
  return isCapitals && named !== small ? named.toUpperCase() : reference;
}
