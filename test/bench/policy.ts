/**
 * npm run bench -- policy [--against FOLDER] [--rounds 100]
 *
 * CPU time of the built-in rule for texts of several lengths. --against names the folder of another checkout, built: its rule reads
 * the same texts in turn, and each row has the ratio of both. The prose is that of docs/; no text is read twice.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import type * as rule from '../../src/policy/sexualises-minors.js';
import { quantile } from './served.js';
import { print } from './stopwatch.js';

const { values: options } = parseArgs({
  options: { against: { type: 'string' }, rounds: { type: 'string', default: '100' } },
});
const root = new URL('../../../', import.meta.url);
const rounds = Number(options.rounds);

const loaded = async (folder: URL) =>
  (await import(new URL('dist/src/policy/sexualises-minors.js', folder).href)) as typeof rule;
const own = await loaded(root);
const other = options.against && (await loaded(pathToFileURL(join(options.against, '/'))));

const docs = readdirSync(new URL('docs', root), { recursive: true, encoding: 'utf8' }).filter((name) =>
  name.endsWith('.md'),
);
const prose = docs.map((name) => readFileSync(new URL(`docs/${name}`, root), 'utf8').replace(/[|`#*]/g, '')).join(' ');
const clean = prose.replace(/[^A-Za-z.,\s]/g, '').replace(/\s+/g, ' ');

const kinds: readonly (readonly [string, number, (length: number, round: number) => string])[] = [
  ['prompt, 100 characters', 100, from(clean)],
  ['prose, 1 KB', 1024, from(clean)],
  ['prose, 11 KB', 11_000, from(clean)],
  ['prose with signs, numbers and code, 11 KB', 11_000, from(prose)],
  ['one word, 11 KB', 11_000, (length, round) => `${'nudechilkid'.repeat(length / 11 - 1)}x${round}`],
  ['words that come once, 11 KB', 11_000, (length, round) => unique(length, round)],
  ['unspaced text, 11 KB', 11_000, (length, round) => '公園で遊ぶ犬と猫の絵、水彩。'.repeat(length / 42) + round],
];

own.prepareRule();
if (other) other.prepareRule();
print(`CPU ms of a check (user and system), median of ${rounds}; the first one in parentheses`);
for (const [name, length, textOf] of kinds) {
  const times: number[] = [];
  const others: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const text = textOf(length, round);
    times.push(cpuMs(own, text));
    if (other) others.push(cpuMs(other, text));
  }
  const median = (each: readonly number[]) => quantile(each, 0.5);
  const row = `${name.padEnd(42)} ${median(times).toFixed(3).padStart(8)} (${times[0]?.toFixed(1)})`;
  if (others.length === 0) print(row);
  else
    print(
      `${row}, before ${median(others).toFixed(3)} (${others[0]?.toFixed(1)}), ratio ${(median(others) / median(times)).toFixed(1)}`,
    );
}

function cpuMs({ sexualisesMinors }: typeof rule, text: string): number {
  const before = process.cpuUsage();
  sexualisesMinors({ positive: [text] });
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Pieces of a text, each from another place. */
function from(text: string) {
  return (length: number, round: number) => {
    const at = Math.floor(((text.length - length) * (round + 0.5)) / rounds);
    return text.slice(at, at + length);
  };
}

function unique(length: number, round: number): string {
  let text = '';
  for (let i = round * length; text.length < length; i += 1)
    text += `${(i * 7919).toString(36).replace(/[0-9]/g, 'q')} `;
  return text;
}
