const LOOKALIKES: Readonly<Record<string, string>> = {
  a: 'а',
  c: 'с',
  d: 'ԁ',
  e: 'е',
  h: 'һ',
  i: 'і',
  l: 'ⅼ',
  n: 'ո',
  o: 'о',
  p: 'р',
  r: 'г',
  s: 'ѕ',
  t: 'т',
  u: 'υ',
  x: 'х',
  k: 'κ',
  m: 'м',
  g: 'ɡ',
};
const SMALL_CAPITALS: Readonly<Record<string, string>> = {
  a: 'ᴀ',
  c: 'ᴄ',
  d: 'ᴅ',
  e: 'ᴇ',
  h: 'ʜ',
  i: 'ɪ',
  l: 'ʟ',
  n: 'ɴ',
  o: 'ᴏ',
  u: 'ᴜ',
  k: 'ᴋ',
  r: 'ʀ',
  t: 'ᴛ',
  x: 'х',
};
const LEET: Readonly<Record<string, string>> = { a: '4', e: '3', i: '1', o: '0', s: '5', t: '7' };
const LEET_SIGNS: Readonly<Record<string, string>> = { a: '@', i: '!', s: '$' };

const eachLetter = (text: string, change: (letter: string) => string) => text.replace(/[a-z]/gi, change);
const mapped = (table: Readonly<Record<string, string>>) => (text: string) =>
  eachLetter(text, (letter) => table[letter.toLowerCase()] ?? letter);
/** Words that matter get the change; "a" and "of" stay. */
const eachWord = (text: string, change: (word: string) => string) => text.replace(/[a-z]{4,}/gi, change);
const between = (sign: string) => (text: string) => eachWord(text, (word) => [...word].join(sign));
const inside = (sign: string) => (text: string) =>
  eachWord(text, (word) => `${word.slice(0, 2)}${sign}${word.slice(2)}`);
const letters = (start: number) => (text: string) =>
  eachLetter(text.toLowerCase(), (letter) => String.fromCodePoint(start + letter.charCodeAt(0) - 97));

/** Ways to write a text so that a reader and a model still read it, by the name of the shape. */
export const evasions: Readonly<Record<string, (text: string) => string>> = {
  capitals: (text) => text.toUpperCase(),
  'look-alike letters': mapped(LOOKALIKES),
  'small capitals': mapped(SMALL_CAPITALS),
  'mathematical letters': letters(0x1d41a),
  'script letters': letters(0x1d4ea),
  'circled letters': letters(0x24d0),
  'negative squared letters': letters(0x1f170),
  'full width': (text) => eachLetter(text, (letter) => String.fromCodePoint(letter.charCodeAt(0) + 0xfee0)),
  'marks on letters': (text) => eachLetter(text, (letter) => `${letter}\u0301\u0327`),
  'enclosing marks': (text) => eachLetter(text, (letter) => `${letter}\u20dd`),
  'zero width space': inside('\u200b'),
  'zero width joiners': between('\u200d'),
  'soft hyphen': inside('\u00ad'),
  'variation selectors': between('\ufe0f'),
  'tag characters': between('\u{e0061}'),
  'Hangul filler': inside('\u3164'),
  'control characters': inside('\u0007'),
  'vertical tab': inside('\v'),
  'delete character': inside('\u007f'),
  'terminal escapes': inside('\u001b[0m'),
  'line breaks': inside('\n'),
  'no-break space': inside('\u00a0'),
  'a blank': inside(' '),
  'blanks between letters': between(' '),
  dots: between('.'),
  hyphen: inside('-'),
  underscores: between('_'),
  asterisk: inside('*'),
  slash: inside('/'),
  'a sign with blanks': inside(' - '),
  parentheses: (text) => eachWord(text, (word) => `(${word.slice(0, 2)})${word.slice(2)}`),
  weights: (text) => eachWord(text, (word) => `(${word.slice(0, 3)}:1.2)${word.slice(3)}`),
  'compel weights': (text) => eachWord(text, (word) => `(${word})1.3`),
  'plus signs': (text) => eachWord(text, (word) => `${word}++`),
  'a digit inside': inside('2'),
  'digits between letters': between('0'),
  'leet digits': mapped(LEET),
  'leet signs': mapped(LEET_SIGNS),
  'one leet digit': (text) => text.replace('i', '1').replace('e', '3'),
  'doubled letters': (text) => eachLetter(text, (letter) => letter.repeat(2)),
  'tripled vowels': (text) => text.replace(/[aeiou]/g, (letter) => letter.repeat(3)),
  'a long last letter': (text) => eachWord(text, (word) => word + (word.at(-1) ?? '').repeat(4)),
  'joined words': (text) => text.replaceAll(' ', ''),
  'joined by underscores': (text) => text.replaceAll(' ', '_'),
  'joined in camel case': (text) => text.replace(/ (\w)/g, (_, letter: string) => letter.toUpperCase()),
  'glued digits before': (text) => eachWord(text, (word) => `1${word}`),
  'glued digits behind': (text) => eachWord(text, (word) => `${word}2`),
  tags: (text) => text.replaceAll(' ', ','),
  'decimal references': (text) => eachLetter(text, (letter) => `&#${letter.charCodeAt(0)};`),
  'hexadecimal references': (text) => eachLetter(text, (letter) => `&#x${letter.charCodeAt(0).toString(16)};`),
  'references of references': (text) => eachLetter(text, (letter) => `&amp;#${letter.charCodeAt(0)};`),
  'references that vanish': inside('&ZeroWidthSpace;'),
  'soft hyphen by reference': inside('&shy;'),
  'upside of a LoRA sign': inside('<lora:ink:0.1>'),
};
