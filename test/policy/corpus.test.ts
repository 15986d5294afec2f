import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { takeLoraSigns } from '../../src/server/request/lora-signs.js';
import { sexualisesMinors } from '../support/policy.js';
import { evasions } from './evasions.js';

const fixture = (name: string) =>
  JSON.parse(readFileSync(new URL(`../fixtures/policy/${name}.json`, import.meta.url), 'utf8'));
const refused: { evaded: string[]; rows: Record<string, string[]> } = fixture('refused');
const allowed: { rows: string[] } = fixture('allowed');

const MIN_REFUSED = 0.99;
const MIN_ALLOWED = 0.97;

/** Texts for which the rule does not say what it should. */
const wrong = (texts: readonly string[], isRefused: boolean) =>
  texts.filter((text) => (sexualisesMinors(text) || sexualisesMinors(takeLoraSigns(text).text)) !== isRefused);

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
});
