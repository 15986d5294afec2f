import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { tempFolder } from '../support/temp-folder.js';

const program = fileURLToPath(new URL('../../dist/test/bench/main.js', import.meta.url));

it('bench gpu runs every part at tiny sizes, and writes what it prints', async () => {
  const out = join(await tempFolder(), 'bench.json');
  const { stdout } = await promisify(execFile)(process.execPath, [program, 'gpu', '--quick', '--out', out]);
  const { provider, rows } = JSON.parse(await readFile(out, 'utf8')) as {
    provider: string;
    rows: readonly { part: string; what: string; result: string; computedBytes?: number }[];
  };
  expect(provider).toBe('cpu');
  expect(new Set(rows.map(({ part }) => part))).toEqual(
    new Set(['providers', 'op probes', 'conformance', 'SDXL', 'WAN']),
  );
  expect(rows.filter(({ result }) => /^failed|^left out|[1-9]\d* failed/.test(result))).toEqual([]);
  for (const { what } of rows) expect(stdout).toContain(what);
  const batches = rows.filter(({ what }) => what.startsWith('64x64, 2 steps')).map((row) => row.computedBytes ?? 0);
  expect(batches).toHaveLength(3);
  expect(batches).toEqual([...new Set(batches)].sort((a, b) => a - b));
}, 120_000);

it('bench gpu leaves out what comes after its time', async () => {
  const out = join(await tempFolder(), 'bench.json');
  const args = [program, 'gpu', '--quick', '--minutes', '0.001', '--out', out];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  expect(stdout).toMatch(/^WAN +left out: 0\.001 minutes are over$/m);
});
