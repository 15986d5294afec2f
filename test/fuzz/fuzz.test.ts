import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parsers, places } from './parsers.js';

const main = fileURLToPath(new URL('../../dist/test/fuzz/main.js', import.meta.url));

describe('a parser of foreign bytes', () => {
  it.each(Object.entries(places))('is fuzzed where it is in %s', async (_, { names, load }) => {
    expect((await load()).parsers.map(({ name }) => name)).toEqual(names);
  });

  it.each(parsers)('%s: changed files and bombs do no harm', { timeout: 300_000 }, async (name) => {
    const { code, output } = await new Promise<{ code: number; output: string }>((resolve) =>
      execFile(
        process.execPath,
        [main, '--only', name, '--count', '200'],
        { maxBuffer: 2 ** 26 },
        (error, stdout, stderr) => resolve({ code: error === null ? 0 : 1, output: stdout + stderr }),
      ),
    );
    expect(code, output).toBe(0);
  });
});
