import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { makeFolder } from '../../src/std/make-folder.js';
import { tempFolder } from '../support/temp-folder.js';

it('many make folders in one that is missing, at the same time', async () => {
  const root = await tempFolder();
  for (let round = 0; round < 50; round += 1) {
    const folders = Array.from({ length: 8 }, (_, i) => join(root, `${round}`, 'ann', `${i}`));
    await Promise.all(folders.map((folder) => makeFolder(folder)));
    for (const folder of folders) expect((await stat(folder)).isDirectory()).toBe(true);
  }
});

it('a folder that the system refuses is an error at once', async () => {
  await expect(makeFolder('/proc/none/here')).rejects.toMatchObject({ code: 'ENOENT' });
});
