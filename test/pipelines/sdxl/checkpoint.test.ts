import { cp, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import { inspectSdxl } from '../../../src/pipelines/sdxl/inspect.js';
import { writeTinySdxl } from '../../../src/synthetic/sdxl.js';
import { sdxlImage } from '../../support/sdxl-image.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, writeTensorFile } from '../../support/tensor-file.js';

const UNET = 'unet/diffusion_pytorch_model.safetensors';

async function copyOfTiny(): Promise<string> {
  const folder = join(await tempFolder(), 'sdxl');
  await cp(inject('wholeSdxl'), folder, { recursive: true });
  return folder;
}

const imageOf = (path: string) => sdxlImage({ path }, { width: 72, height: 56, guidanceScale: 6 });

/** What the reference's own tensors add up to. */
async function parametersOfManifest(file: string): Promise<number> {
  const path = new URL('../../fixtures/goldens/sdxl-tiny/manifest.json', import.meta.url);
  const manifest = JSON.parse(await readFile(path, 'utf8')) as Record<string, { tensors: [string, number[]][] }>;
  return (manifest[file]?.tensors ?? []).reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

async function snapshot(folder: string): Promise<readonly string[]> {
  const names = (await readdir(folder, { recursive: true })).sort();
  return Promise.all(names.map(async (name) => `${name} ${(await stat(join(folder, name))).mtimeMs}`));
}

describe('an SDXL folder', () => {
  it('is recognised by its files alone, and nothing is written near it', async () => {
    const folder = await copyOfTiny();
    const before = await snapshot(dirname(folder));
    const { info, networks } = await inspectSdxl({ path: folder });
    await imageOf(folder);
    expect(info).toMatchObject({
      family: 'sdxl',
      storage: 'F16',
      predictionType: 'epsilon',
      nativeWidth: 64,
      nativeHeight: 64,
      sizeMultiple: 8,
    });
    expect(networks.unet.parameters).toBe(await parametersOfManifest(UNET));
    // Each weight counts once, though the shallow UNet reads some again.
    expect(info.parameters).toBe(Object.values(networks).reduce((sum, { parameters }) => sum + parameters, 0));
    expect(Object.keys(networks)).toEqual(['text_encoder', 'text_encoder_2', 'unet', 'vae_decoder', 'vae_encoder']);
    expect(await snapshot(dirname(folder))).toEqual(before);
  });

  it('makes the same image from shards, and from the symbolic links of the Hugging Face cache', async () => {
    const plain = await copyOfTiny();
    const expected = await imageOf(plain);
    const sharded = await copyOfTiny();
    const tensors = [...(await readTensorFile(join(sharded, UNET)))];
    const shards = [0, 1].map((half) => new Map(tensors.filter((_, i) => i % 2 === half)));
    const weightMap: Record<string, string> = {};
    for (const [i, shard] of shards.entries()) {
      const file = `diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`;
      await writeTensorFile(join(sharded, 'unet', file), shard);
      for (const name of shard.keys()) weightMap[name] = file;
    }
    await rm(join(sharded, UNET));
    await writeFile(join(sharded, `${UNET}.index.json`), JSON.stringify({ metadata: {}, weight_map: weightMap }));
    expect(await imageOf(sharded)).toEqual(expected);

    const cache = await tempFolder();
    const revision = join(cache, 'snapshots', '1234');
    await mkdir(join(cache, 'blobs'), { recursive: true });
    await cp(sharded, revision, { recursive: true });
    for (const name of await readdir(revision, { recursive: true })) {
      const path = join(revision, name);
      if (!(await stat(path)).isFile()) continue;
      const blob = join(cache, 'blobs', name.replaceAll('/', '_'));
      await rename(path, blob);
      await symlink(blob, path);
    }
    expect(await imageOf(revision)).toEqual(expected);
  });

  it('works in BF16 and F32', async () => {
    const folder = await tempFolder();
    const f32 = await imageOf(await writeTinySdxl(join(folder, 'f32'), 'F32'));
    const bf16 = await imageOf(await writeTinySdxl(join(folder, 'bf16'), 'BF16'));
    const f16 = await imageOf(inject('wholeSdxl'));
    const mean = (a: Uint8Array, b: Uint8Array) =>
      a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] ?? 0)), 0) / a.length;
    // The same weights, rounded to 11, 8 and 24 bits.
    expect(mean(f32, f16)).toBeGreaterThan(0);
    expect(mean(f32, f16)).toBeLessThan(2);
    expect(mean(f32, bf16)).toBeLessThan(12);
  });

  it('loads with spare tensors, and lists them', async () => {
    const folder = await copyOfTiny();
    const spare = [
      ['text_encoder/model.safetensors', 'text_projection.weight'],
      ['text_encoder_2/model.safetensors', 'logit_scale'],
      [UNET, 'step'],
    ] as const;
    for (const [file, key] of spare) {
      const tensors = await readTensorFile(join(folder, file));
      tensors.set(key, { dtype: 'F32', shape: [1], bytes: Buffer.alloc(4) });
      await writeTensorFile(join(folder, file), tensors);
    }
    expect((await inspectSdxl({ path: folder })).info.unused).toEqual(spare.map(([, key]) => key));
    expect(await imageOf(folder)).toEqual(await imageOf(inject('wholeSdxl')));
  });

  it('lists missing, mis-shaped and wrongly typed tensors of all networks together', async () => {
    const folder = await copyOfTiny();
    const tensors = await readTensorFile(join(folder, UNET));
    const [bias, out, time] = ['conv_in.bias', 'conv_out.bias', 'time_embedding.linear_1.bias'].map((name) =>
      tensors.get(name),
    );
    if (bias === undefined || out === undefined || time === undefined) throw new Error('the fixture changed');
    tensors.delete('conv_in.bias');
    tensors.set('conv_out.bias', { ...out, shape: [2, 2] });
    tensors.set('time_embedding.linear_1.bias', { ...time, dtype: 'I16' });
    await writeTensorFile(join(folder, UNET), tensors);
    await rm(join(folder, 'vae/diffusion_pytorch_model.safetensors'));
    const { message, reason } = await inspectSdxl({ path: folder }).then(
      () => ({ message: '', reason: '' }),
      (error: { message: string; reason: string }) => error,
    );
    expect(reason).toBe('CHECKPOINT_INVALID');
    expect(message).toContain('unet: missing: conv_in.bias [32]');
    expect(message).toContain('unet: mis-shaped: conv_out.bias is [2, 2], must be [4]');
    expect(message).toContain(
      'unet: wrong type: time_embedding.linear_1.bias is I16, must be one of F32, F16, BF16, F8_E4M3, F8_E5M2',
    );
    expect(message).toContain(`${basename(folder)}/vae has no diffusion_pytorch_model.safetensors`);
  });

  const broken: readonly [string, (folder: string) => Promise<void>, RegExp][] = [
    [
      'a folder without model_index.json',
      (folder) => rm(join(folder, 'model_index.json')),
      /model_index.json is missing/,
    ],
    [
      'another pipeline',
      (folder) => writeFile(join(folder, 'model_index.json'), '{"_class_name":"FluxPipeline"}'),
      /describes a FluxPipeline, darkroom needs a StableDiffusionXLPipeline/,
    ],
    [
      'a configuration that is not JSON',
      (folder) => writeFile(join(folder, 'unet/config.json'), '{'),
      /unet\/config.json is not JSON/,
    ],
    [
      'a block type of another model',
      async (folder) => {
        const path = join(folder, 'unet/config.json');
        await writeFile(path, (await readFile(path, 'utf8')).replace('"DownBlock2D"', '"KDownBlock2D"'));
      },
      /unet\/config.json down_block_types.0: must be one of /,
    ],
    [
      'a shard outside the folder',
      async (folder) => {
        await rm(join(folder, UNET));
        await writeFile(join(folder, `${UNET}.index.json`), '{"weight_map":{"a":"../../secret.safetensors"}}');
      },
      /names the shard "..\/..\/secret.safetensors", which is not a file beside it/,
    ],
    [
      'a distilled UNet',
      async (folder) => {
        const path = join(folder, 'unet/config.json');
        const config = JSON.parse(await readFile(path, 'utf8')) as object;
        await writeFile(path, JSON.stringify({ ...config, mid_block_type: 'UNetMidBlock2D' }));
      },
      /a distilled SDXL such as SSD-1B/,
    ],
    [
      'more layers than a model may have',
      async (folder) => {
        const path = join(folder, 'unet/config.json');
        const config = JSON.parse(await readFile(path, 'utf8')) as object;
        await writeFile(path, JSON.stringify({ ...config, layers_per_block: 257 }));
      },
      /unet\/config.json layers_per_block: .*<= 256/,
    ],
    [
      'pickled weights alone',
      async (folder) => {
        await rm(join(folder, UNET));
        await writeFile(join(folder, 'unet/diffusion_pytorch_model.bin'), '');
      },
      /only diffusion_pytorch_model.bin; get the .safetensors variant/,
    ],
  ];
  it.each(broken)('is refused: %s', async (_, breakIt, message) => {
    const folder = await copyOfTiny();
    await breakIt(folder);
    await expect(inspectSdxl({ path: folder })).rejects.toMatchObject({
      reason: expect.stringMatching(/^(CHECKPOINT_INVALID|MODEL_UNSUPPORTED)$/) as string,
      message: expect.stringMatching(message) as string,
    });
  });
});
