import { readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { AuditLog } from '../../../src/server/access/audit-log.js';
import { silent } from '../../support/serving.js';
import { tempFolder } from '../../support/temp-folder.js';

/** Subjects of all entries of all files in a folder. */
async function subjects(folder: string): Promise<readonly string[]> {
  const texts = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')));
  return texts.flatMap((text) => text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line).subject])));
}

it('loses no entry when files are full, and when another program renames them', async () => {
  const folder = await tempFolder();
  const path = join(folder, 'audit.jsonl');
  const audit = await AuditLog.open(path, { maxBytes: 4096, log: silent });
  const all: string[] = [];
  for (let i = 0; i < 400; i += 1) {
    all.push(`model-${i}`);
    audit.record({ kind: 'admin', token: 'operator', method: '/a/B', subject: `model-${i}` });
    if (i % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 3));
    if (i === 200) await rename(path, join(folder, 'moved-by-logrotate'));
  }
  await audit.close();
  const found = await subjects(folder);
  expect([...found].sort()).toEqual([...all].sort());
  expect((await readdir(folder)).length).toBeGreaterThan(3);
});

it('goes on in the file of the process before', async () => {
  const folder = await tempFolder();
  const path = join(folder, 'audit.jsonl');
  for (const subject of ['first', 'second']) {
    const audit = await AuditLog.open(path, { maxBytes: 4096, log: silent });
    audit.record({ kind: 'admin', subject });
    await audit.close();
  }
  expect(await subjects(folder)).toEqual(['first', 'second']);
});
