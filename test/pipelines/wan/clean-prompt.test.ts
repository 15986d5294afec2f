import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { cleanPrompt } from '../../../src/pipelines/wan/prompt/clean-prompt.js';

describe('cleanPrompt', async () => {
  // Made by test/fixtures/prompts/wan_clean.py, which says how.
  const table = fileURLToPath(new URL('../../fixtures/prompts/wan_clean.json', import.meta.url));
  const { cases } = JSON.parse(await readFile(table, 'utf8')) as { cases: [string, string][] };

  it('cleans text like ftfy and Python', () => {
    expect(cases.length).toBeGreaterThan(100);
    expect(cases.map(([text]) => [text, cleanPrompt(text)])).toEqual(cases);
  });

  it('does not repair text that was read in the wrong encoding, which ftfy would guess', () => {
    expect(cleanPrompt('cafÃ©')).toBe('cafÃ©');
  });

  it('replaces half a surrogate pair', () => {
    expect(cleanPrompt('a\ud83eb')).toBe('a\ufffdb');
  });

  it('is fast on a thousand nested references', { timeout: 10_000 }, () => {
    expect(cleanPrompt(`&${'amp;'.repeat(4000)}`)).toMatch(/^&amp;/);
  });
});
