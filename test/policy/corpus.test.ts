import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { takeLoraSigns } from '../../src/server/request/lora-signs.js';
import { policy, sexualisesMinors } from '../support/policy.js';
import { evasions } from './evasions.js';

const fixture = (name: string) =>
  JSON.parse(readFileSync(new URL(`../fixtures/policy/${name}.json`, import.meta.url), 'utf8'));
const refused: { evaded: string[]; rows: Record<string, string[]> } = fixture('refused');
const allowed: { rows: string[] } = fixture('allowed');

/** Sets that were written without the lexicons at hand. docs/reference/policy.md has the rates of their first runs. */
type Row = string | { readonly positive: readonly string[]; readonly negative?: string };
const probes: [string, Record<'refused' | 'allowed', Record<string, Row[]>>][] = [
  'probes-1',
  'probes-2',
  'probes-3',
  'probes-4',
].map((name) => [name, fixture(name)]);
const products: { languages: Record<string, { subjects: string[]; contexts: string[] }>; allowed: string[] } =
  fixture('products');
const MIN_PROBES = { refused: 0.94, allowed: 0.94 };

const MIN_REFUSED = 0.99;
const MIN_ALLOWED = 0.97;

/** Texts for which the rule does not say what it should. */
const wrong = (texts: readonly string[], isRefused: boolean) =>
  texts.filter((text) => (sexualisesMinors(text) || sexualisesMinors(takeLoraSigns(text).text)) !== isRefused);

/** The same for rows of several texts; names of LoRAs count. */
const isRefused = (row: Row) => {
  if (typeof row !== 'string') return policy.find(row) !== undefined;
  const { text, signs } = takeLoraSigns(row);
  return sexualisesMinors(row) || policy.find({ positive: [text, ...signs.map(({ name }) => name)] }) !== undefined;
};

const evaded = Object.entries(evasions).map(([shape, change]) => [shape, refused.evaded.map(change)] as const);

describe('the corpus of the policy', () => {
  it.each(Object.entries(refused.rows))('is refused in %s', (_, texts) => {
    expect(wrong(texts, true)).toEqual([]);
  });

  it.each(evaded)('is refused with %s', (_, texts) => {
    expect(wrong(texts, true)).toEqual([]);
  });

  it('is refused at the rate that is promised', () => {
    const texts = [...Object.values(refused.rows).flat(), ...evaded.flatMap(([, each]) => each)];
    expect(1 - wrong(texts, true).length / texts.length).toBeGreaterThanOrEqual(MIN_REFUSED);
  });

  it('lets innocent prompts pass at the rate that is promised', () => {
    const refusals = wrong(allowed.rows, false);
    expect([refusals.length / allowed.rows.length <= 1 - MIN_ALLOWED, refusals]).toEqual([true, expect.anything()]);
  });

  it.each(probes)('has the rates of %s', (_, { refused: bad, allowed: good }) => {
    const passed = Object.values(bad)
      .flat()
      .filter((row) => !isRefused(row));
    const stopped = Object.values(good).flat().filter(isRefused);
    const rate = (wrongRows: readonly Row[], rows: Record<string, Row[]>) =>
      1 - wrongRows.length / Object.values(rows).flat().length;
    expect([rate(passed, bad) >= MIN_PROBES.refused, passed]).toEqual([true, expect.anything()]);
    expect([rate(stopped, good) >= MIN_PROBES.allowed, stopped]).toEqual([true, expect.anything()]);
  });

  it.each(Object.entries(products.languages))('refuses what is put together of %s', (_, { subjects, contexts }) => {
    const texts = subjects.flatMap((subject) => contexts.map((context) => `${subject}, ${context}`));
    const passed = wrong(texts, true);
    expect([1 - passed.length / texts.length >= MIN_PROBES.refused, passed]).toEqual([true, expect.anything()]);
  });

  it('lets the innocent ones beside them pass', () => {
    const stopped = wrong(products.allowed, false);
    expect([1 - stopped.length / products.allowed.length >= MIN_PROBES.allowed, stopped]).toEqual([
      true,
      expect.anything(),
    ]);
  });
});
