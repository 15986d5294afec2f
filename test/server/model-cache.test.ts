import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { imageWith, serve } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

describe('MODEL_CACHE_DIR', () => {
  it.each([
    ['native', 'packed'],
    ['binding', 'mapped'],
  ] as const)(
    'gives a server the same image when it is not there, written and read, %s, %s',
    async (runtime, weights) => {
      const folder = join(await tempFolder(), 'cache');
      const settings = { RUNTIME: runtime, CPU_WEIGHTS: weights } as const;
      const plain = await imageWith(settings);
      expect(await imageWith({ ...settings, MODEL_CACHE_DIR: folder })).toBe(plain);
      const entries = await readdir(folder);
      // Both text encoders, the UNet and the decoder: the encoder opens with the first reference.
      expect(entries.filter((name) => /^[0-9a-f]{64}$/.test(name))).toHaveLength(4);
      expect(entries).toHaveLength(4);
      expect(await imageWith({ ...settings, MODEL_CACHE_DIR: folder })).toBe(plain);
      expect(await readdir(folder)).toEqual(entries);
    },
  );
});

describe('CPU_LINEAR=int8', () => {
  it('draws an image from weights that the folder keeps, the same each time', async () => {
    const folder = join(await tempFolder(), 'cache');
    const int8 = { MODEL_CACHE_DIR: folder, CPU_LINEAR: 'int8' } as const;
    const plain = await imageWith({ MODEL_CACHE_DIR: folder });
    const [written, read] = [await imageWith(int8), await imageWith(int8)];
    expect(written).toBeDefined();
    expect(read).toEqual(written);
    expect(written).not.toEqual(plain);
  });

  it('is refused without a folder', async () => {
    await expect(serve({ CPU_LINEAR: 'int8' })).rejects.toThrow(
      'CPU_LINEAR=int8 keeps its weights in MODEL_CACHE_DIR; set it to a folder',
    );
  });
});
