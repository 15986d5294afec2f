import { appendFile, link, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { SourceFiles } from '../../src/pipelines/common/source-files.js';
import { fileVersion } from '../../src/std/file-version.js';
import { tempFolder } from '../support/temp-folder.js';

let path: string;
let other: string;
let sources: SourceFiles;
beforeEach(async () => {
  const folder = await tempFolder();
  [path, other] = [join(folder, 'model'), join(folder, 'other')];
  await writeFile(path, 'weights');
  await writeFile(other, 'others!');
  sources = new SourceFiles(new Map([[path, await fileVersion(path)]]));
});

const changes: Readonly<Record<string, () => Promise<void>>> = {
  'is replaced by one of the same size': () => rename(other, path),
  'becomes a link to another': () => rm(path).then(() => symlink(other, path)),
  'is written to': () => appendFile(path, ' and more'),
  'is removed': () => rm(path),
};

describe('what reads the files of a checkpoint', () => {
  it('gives its result where they are the same, also under one more name', async () => {
    await link(path, `${path}.backup`);
    await expect(sources.reading(async () => 'read')).resolves.toBe('read');
    await expect(sources.reading(() => Promise.reject(new Error('damaged')))).rejects.toThrow('damaged');
  });

  it.each(Object.entries(changes))('does not begin where one %s', async (_, change) => {
    await change();
    let isRead = false;
    const reading = sources.reading(async () => {
      isRead = true;
    });
    await expect(reading).rejects.toMatchObject({ reason: 'ENGINE_STARTING', file: path });
    expect(isRead).toBe(false);
  });

  it('releases what it came to where that does not count', async () => {
    const released: string[] = [];
    const reading = sources.reading(
      async () => {
        await rm(path);
        return 'session';
      },
      async (session) => void released.push(session),
    );
    await expect(reading).rejects.toMatchObject({ file: path });
    expect(released).toEqual(['session']);
  });

  it.each(Object.entries(changes))('does not count where one %s meanwhile, whatever it came to', async (_, change) => {
    const failing = sources.reading(async () => {
      await change();
      throw new Error('half of a tensor is missing');
    });
    await expect(failing).rejects.toMatchObject({ reason: 'ENGINE_STARTING', file: path });
  });
});
