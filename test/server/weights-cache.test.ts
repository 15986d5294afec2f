import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, it } from 'vitest';
import { originalUNetNames } from '../../src/pipelines/sdxl/checkpoint/original-names.js';
import { writeQuantized } from '../support/gguf-file.js';
import { imageWith } from '../support/serving.js';
import { tempFolder } from '../support/temp-folder.js';
import { readTensorFile } from '../support/tensor-file.js';

it('an engine converts a GGUF file into WEIGHTS_CACHE, and another engine takes it from there', async () => {
  const folder = await tempFolder();
  const tensors = await readTensorFile(join(inject('tinySdxl'), 'unet', 'diffusion_pytorch_model.safetensors'));
  const names = originalUNetNames([...tensors.keys()]);
  const gguf = join(folder, 'unet.gguf');
  await writeQuantized(gguf, tensors, (key) => names.get(key) ?? key);
  const cache = join(folder, 'cache');
  const variables = { SDXL_UNET: gguf, WEIGHTS_CACHE: cache };
  const first = await imageWith(variables);
  const entries = await readdir(cache);
  expect(entries).toEqual([expect.stringMatching(/^unet-[0-9a-f]{32}\.safetensors$/)]);
  expect(await imageWith(variables)).toBe(first);
  expect(await readdir(cache)).toEqual(entries);
  expect(await imageWith({})).not.toBe(first);
});
