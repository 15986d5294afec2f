import { appendFile, chmod, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { watchFiles } from '../../src/std/watch-files.js';
import { until } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

it.each([
  ['is written to', (path: string) => appendFile(path, ' and more')],
  ['is replaced', (path: string) => writeFile(`${path}.next`, 'token').then(() => rename(`${path}.next`, path))],
  // A file that could not be read may be readable now.
  ['gets another mode', (path: string) => chmod(path, 0o640)],
])('a watch tells of a file that %s', async (_, change) => {
  const path = join(await tempFolder(), 'tokens.json');
  await writeFile(path, 'token', { mode: 0o600 });
  let isTold = false;
  const onChange = () => {
    isTold = true;
  };
  onTestFinished(watchFiles([path], onChange, 20));
  // More than once: the first look may come after the first change.
  await until(async () => {
    await change(path);
    return isTold;
  });
  expect(isTold).toBe(true);
});
