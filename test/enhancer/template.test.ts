import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { builtInTemplate, readTemplate } from '../../src/enhancer/template.js';
import { tempFolder } from '../support/temp-folder.js';

async function template(text: string): Promise<string> {
  const path = join(await tempFolder(), 'enhance.yaml');
  await writeFile(path, text);
  return path;
}

describe('readTemplate', () => {
  it('gives the built-in template where there is no file', async () => {
    expect(await readTemplate(undefined)).toBe(builtInTemplate);
  });

  it('takes what a file says, and the rest from the built-in one', async () => {
    const path = await template('system: Be brief.\nuser: |\n  Idea: {prompt}\nmax_tokens: 200\nstop: ["###"]\n');
    expect(await readTemplate(path)).toEqual({
      ...builtInTemplate,
      system: 'Be brief.',
      user: 'Idea: {prompt}\n',
      maxTokens: 200,
      stop: ['###'],
    });
  });

  it.each([
    ['has no place for the prompt', 'user: Describe it.', 'user must have {prompt} in it, once'],
    ['has two places', 'plain: "{prompt} {prompt}"', 'plain must have {prompt} in it, once'],
    ['asks for more tokens than the contract has', 'max_tokens: 513', 'max_tokens must be <= 512'],
    ['names what is unknown', 'top_k: 3', 'it Unrecognized key: "top_k"'],
    ['is a list', '- a', 'it must be an object'],
    ['is no YAML', 'user: "{prompt}', 'is not YAML: Missing closing "quote at line 1'],
  ])('refuses a file that %s', async (_, text, problem) => {
    await expect(readTemplate(await template(text))).rejects.toMatchObject({
      reason: 'INVALID_REQUEST',
      message: expect.stringContaining(problem) as string,
    });
  });

  it('tells all mistakes at once', async () => {
    const path = await template('temperature: 3\ntop_p: 0\n');
    await expect(readTemplate(path)).rejects.toThrow(/- temperature .*\n.*- top_p /);
  });

  it('refuses a file that is not there, and one of a megabyte', async () => {
    await expect(readTemplate('/nowhere.yaml')).rejects.toThrow('ENHANCE_TEMPLATE /nowhere.yaml does not exist');
    await expect(readTemplate(await template(`system: ${'x'.repeat(2 ** 20)}`))).rejects.toThrow('the limit is 65536');
  });

  it('does not grow with references inside the file', async () => {
    const bomb = `a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a]\n${['c', 'd', 'e', 'f']
      .map((name, i) => `${name}: &${name} [${new Array(9).fill(`*${'bcde'[i]}`).join(', ')}]`)
      .join('\n')}\n`;
    await expect(readTemplate(await template(bomb))).rejects.toMatchObject({ reason: 'INVALID_REQUEST' });
  });
});
