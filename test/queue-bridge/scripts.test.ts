import { readdir, readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { loadScript, scriptArguments } from '../../src/queue-bridge/queue/script.js';
import { loadScripts } from '../../src/queue-bridge/queue/scripts.js';
import { type ScriptName, signatures } from '../../src/queue-bridge/queue/signatures.js';

const folder = new URL('../../src/queue-bridge/queue/scripts/', import.meta.url);
const names = Object.keys(signatures) as ScriptName[];
const snakeCase = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** The lines of a file's first comment, without their dashes. */
async function headerOf(name: ScriptName): Promise<string> {
  const lua = await readFile(new URL(`${name}.lua`, folder), 'utf8');
  const lines = lua.split('\n');
  const end = lines.findIndex((line) => line.startsWith('-- @include'));
  return lines
    .slice(0, end)
    .map((line) => line.replace(/^-- ?/, ''))
    .join('\n');
}

describe("the queue's scripts", () => {
  it('have a file each, and no file is left over', async () => {
    const files = (await readdir(folder)).filter((name) => name.endsWith('.lua')).sort();
    expect(files).toEqual(names.map((name) => `${name}.lua`).sort());
  });

  it.each(names)('%s explains KEYS, ARGV in the order in which they are sent, and the result', async (name) => {
    const header = await headerOf(name);
    const { arguments: args, columns = [] }: { arguments: readonly string[]; columns?: readonly string[] } =
      signatures[name];
    const rows = [...header.matchAll(/^ARGV\[(\d+)\] +(\w+)/gm)].map(([, i, argument]) => [Number(i), argument]);
    expect(rows).toEqual(['prefix', ...args.map(snakeCase)].map((argument, i) => [i + 1, argument]));
    const [, tail = ''] = /^ARGV\[\d+\.\.\] +for each [^\n]*\n((?: {10}[^\n]*\n)+)/m.exec(header) ?? [];
    const inTail = [...tail.matchAll(/^ {10,11}(\w+) {2,}/gm)].map(([, column]) => column);
    expect(inTail).toEqual(columns);
    if (columns.length > 0) expect(header).toContain(`ARGV[${args.length + 2}..]`);
    expect(header).toMatch(/^KEYS(\[| +none$)/m);
    expect(header).toMatch(/^Returns /m);
  });

  it.each(names)('%s names its arguments at the top', async (name) => {
    const lua = await readFile(new URL(`${name}.lua`, folder), 'utf8');
    const code = lua.split('\n').filter((line) => !line.startsWith('--'));
    for (const line of code) if (/(ARGV|KEYS)\[\d/.test(line)) expect(line).toMatch(/^local [\w, ]+ = /);
  });

  it('include each shared part once', () => {
    for (const { source, sha1 } of Object.values(loadScripts())) {
      expect((source.match(/^local function owns/gm) ?? []).length).toBeLessThan(2);
      expect(source).not.toMatch(/^-- @include/m);
      expect(sha1).toMatch(/^[0-9a-f]{40}$/);
    }
  });

  it('are in the build, which is what npm packs', async () => {
    const { files } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
      files: readonly string[];
    };
    expect(files).toContain('dist/src');
    const luaIn = async (url: URL) =>
      (await readdir(url, { recursive: true })).filter((name) => name.endsWith('.lua')).sort();
    expect(await luaIn(new URL('../../dist/src/queue-bridge/queue/scripts/', import.meta.url))).toEqual(
      await luaIn(folder),
    );
  });

  it('fail when they are loaded, if a file is missing', () => {
    expect(() => loadScript('no-such', { arguments: [] })).toThrow('no-such.lua');
  });

  it('get named arguments in their order, flags as 1 and 0', () => {
    const signature = { arguments: ['id', 'isSpent'], columns: ['lane', 'weight'] };
    const lanes = [
      { weight: 3, lane: 'sdxl' },
      { weight: 1, lane: 'wan' },
    ];
    const sent = scriptArguments(signature, { isSpent: true, id: 'a' }, lanes);
    expect(sent).toEqual(['a', '1', 'sdxl', '3', 'wan', '1']);
    expect(() => scriptArguments(signature, { id: 'a' })).toThrow('the script argument isSpent is missing');
  });
});
