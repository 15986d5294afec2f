import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { AuditLog } from '../../../src/server/access/audit-log.js';
import { silent, until } from '../../support/serving.js';
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

it('writes each entry once and whole, though the disk was full in the middle of one', async () => {
  const folder = await tempFolder();
  const path = join(folder, 'audit.jsonl');
  const limitFiles = (bytes: string) => execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`]);
  // Without a listener the signal of a full file ends the process.
  const ignore = () => undefined;
  process.on('SIGXFSZ', ignore);
  onTestFinished(() => {
    limitFiles('unlimited');
    process.off('SIGXFSZ', ignore);
  });
  const audit = await AuditLog.open(path, { maxBytes: 1e6, log: silent });
  limitFiles('1000');
  const all = Array.from({ length: 40 }, (_, i) => `model-${i}`);
  for (const subject of all) audit.record({ kind: 'admin', subject });
  await until(async () => (await stat(path)).size === 1000);
  expect(await readFile(path, 'utf8')).not.toMatch(/\n$/);
  limitFiles('unlimited');
  await audit.close();
  expect(await subjects(folder)).toEqual(all);
});

it('may be a pipe, such as the output of a container', async () => {
  const folder = await tempFolder();
  const [pipe, copy] = [join(folder, 'pipe'), join(folder, 'copy')];
  execFileSync('mkfifo', [pipe]);
  const reader = spawn('sh', ['-c', `cat ${pipe} > ${copy}`]);
  const audit = await AuditLog.open(pipe, { maxBytes: 1e6, log: silent });
  for (const subject of ['first', 'second']) audit.record({ kind: 'admin', subject });
  await audit.close();
  await once(reader, 'exit');
  const text = await readFile(copy, 'utf8');
  expect(text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line).subject]))).toEqual([
    'first',
    'second',
  ]);
});

it('never takes the name of another full file', async () => {
  const folder = await tempFolder();
  const path = join(folder, 'audit.jsonl');
  vi.useFakeTimers({ toFake: ['Date'] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  const all = Array.from({ length: 6 }, (_, i) => `model-${i}`);
  for (const subject of all) {
    const audit = await AuditLog.open(path, { maxBytes: 10, log: silent });
    audit.record({ kind: 'admin', subject });
    await audit.close();
  }
  expect([...(await subjects(folder))].sort()).toEqual(all);
});
