import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, inject, it } from 'vitest';
import { originalUNetNames } from '../../../src/pipelines/sdxl/checkpoint/original-names.js';
import { inspectSdxl } from '../../../src/pipelines/sdxl/inspect.js';
import { writeQuantized } from '../../support/gguf-file.js';
import { sdxlImage } from '../../support/sdxl-image.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, writeTensorFile } from '../../support/tensor-file.js';

const lora = fileURLToPath(new URL('../../fixtures/goldens/sdxl-lora/attn.kohya.safetensors', import.meta.url));

describe("an SDXL's UNet in a GGUF file", () => {
  it.each([
    ['the original names', 'original', ''],
    ['the original names with their prefix', 'original', 'model.diffusion_model.'],
    ["diffusers' names", 'diffusers', ''],
  ])('draws what the same numbers in safetensors do, with a LoRA or without, in %s', async (_, layout, prefix) => {
    const folder = await tempFolder();
    const path = inject('wholeSdxl');
    const tensors = await readTensorFile(join(path, 'unet', 'diffusion_pytorch_model.safetensors'));
    const names = originalUNetNames([...tensors.keys()]);
    const [gguf, safetensors] = [join(folder, 'unet-Q8_0.gguf'), join(folder, 'unet.safetensors')];
    const rename = (key: string) => prefix + (layout === 'original' ? (names.get(key) ?? key) : key);
    await writeTensorFile(safetensors, await writeQuantized(gguf, tensors, rename));
    const weightsCache = join(folder, 'cache');
    expect((await inspectSdxl({ path, unet: gguf, weightsCache })).info).toMatchObject({
      storage: 'Q8_0 as F16',
      unused: [],
    });
    const ours = await sdxlImage({ path, unet: gguf, weightsCache });
    expect(await readdir(weightsCache)).toHaveLength(1);
    expect(ours).toEqual(await sdxlImage({ path, unet: safetensors }));
    expect(ours).not.toEqual(await sdxlImage({ path }));
    const loras = [{ path: lora, weight: 1 }];
    const changed = await sdxlImage({ path, unet: gguf, weightsCache, loras });
    expect(changed).toEqual(await sdxlImage({ path, unet: safetensors, loras }));
    expect(changed).not.toEqual(ours);
  });

  it('is no whole checkpoint', async () => {
    const path = join(await tempFolder(), 'unet.gguf');
    await writeQuantized(path, new Map(), (key) => key);
    await expect(inspectSdxl({ path })).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: `${path} is a GGUF file, not a whole SDXL checkpoint; give one, and the UNet in GGUF with --unet FILE`,
    });
  });
});
