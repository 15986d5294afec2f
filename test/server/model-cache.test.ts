import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { outcomeOf, quick, serve } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';

describe('MODEL_CACHE_DIR', () => {
  it.each([
    ['native', 'packed'],
    ['binding', 'mapped'],
  ] as const)(
    'gives a server the same image when it is not there, written and read, %s, %s',
    async (runtime, weights) => {
      const folder = join(await tempFolder(), 'cache');
      const imageWith = async (variables: Parameters<typeof serve>[0]) => {
        const serving = await serve({ RUNTIME: runtime, CPU_WEIGHTS: weights, ...variables });
        try {
          const { files, error } = await outcomeOf(serving.client, quick);
          expect(error).toBeUndefined();
          return files[0]?.toString('base64');
        } finally {
          await serving.stop();
        }
      };
      const plain = await imageWith({});
      expect(await imageWith({ MODEL_CACHE_DIR: folder })).toBe(plain);
      const entries = await readdir(folder);
      // Both text encoders, the UNet and the decoder: the encoder opens with the first reference.
      expect(entries.filter((name) => /^[0-9a-f]{64}$/.test(name))).toHaveLength(4);
      expect(entries).toHaveLength(4);
      expect(await imageWith({ MODEL_CACHE_DIR: folder })).toBe(plain);
      expect(await readdir(folder)).toEqual(entries);
    },
  );
});

describe('CPU_LINEAR=int8', () => {
  it('draws an image from weights that the folder keeps, the same each time', async () => {
    const folder = join(await tempFolder(), 'cache');
    const images: (Buffer | undefined)[] = [];
    for (const variables of [{}, { CPU_LINEAR: 'int8' }, { CPU_LINEAR: 'int8' }] as const) {
      const serving = await serve({ MODEL_CACHE_DIR: folder, ...variables });
      try {
        const { files, error } = await outcomeOf(serving.client, quick);
        expect(error).toBeUndefined();
        images.push(files[0]);
      } finally {
        await serving.stop();
      }
    }
    const [plain, written, read] = images;
    expect(read).toEqual(written);
    expect(written).not.toEqual(plain);
  });

  it('is refused without a folder', async () => {
    await expect(serve({ CPU_LINEAR: 'int8' })).rejects.toThrow(
      'CPU_LINEAR=int8 keeps its weights in MODEL_CACHE_DIR; set it to a folder',
    );
  });
});
