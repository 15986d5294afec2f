import { cp, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import { createSdxlPipeline, inspectSdxl } from '../../src/pipelines/sdxl/index.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { safetensorsBytes } from '../support/safetensors-bytes.js';
import { tempFolder } from '../support/temp-folder.js';

const UNET = 'unet/diffusion_pytorch_model.safetensors';

async function copyOfTiny(): Promise<string> {
  const folder = join(await tempFolder(), 'sdxl');
  await cp(inject('tinySdxl'), folder, { recursive: true });
  return folder;
}

type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };

async function readEntries(path: string): Promise<{ header: Record<string, Entry>; data: Buffer }> {
  const bytes = await readFile(path);
  const length = Number(bytes.readBigUInt64LE());
  return { header: JSON.parse(bytes.subarray(8, 8 + length).toString()), data: bytes.subarray(8 + length) };
}

/** Writes some tensors of a file as a file of their own. */
async function writeShard(
  path: string,
  names: readonly string[],
  header: Record<string, Entry>,
  data: Buffer,
): Promise<void> {
  const parts: Buffer[] = [];
  const entries: Record<string, Entry> = {};
  let end = 0;
  for (const name of names) {
    const entry = header[name];
    if (entry === undefined) throw new Error(name);
    const part = data.subarray(...entry.data_offsets);
    entries[name] = { ...entry, data_offsets: [end, end + part.length] };
    end += part.length;
    parts.push(part);
  }
  await writeFile(path, safetensorsBytes(entries, Buffer.concat(parts)));
}

async function pictureOf(path: string): Promise<Uint8Array> {
  const pipeline = await createSdxlPipeline({ path, device: 'cpu', threads: 1 });
  try {
    const request = {
      prompt: 'a red circle',
      negativePrompt: undefined,
      width: 72,
      height: 56,
      steps: 2,
      guidanceScale: 6,
      scheduler: 'euler',
      seeds: [3],
    };
    for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }]))
      if (event.kind === 'image') return event.rgb;
    throw new Error('no picture');
  } finally {
    await pipeline.dispose();
  }
}

/** What the reference's own tensors add up to. */
async function parametersOfManifest(file: string): Promise<number> {
  const path = new URL('../fixtures/goldens/sdxl-tiny/manifest.json', import.meta.url);
  const manifest = JSON.parse(await readFile(path, 'utf8')) as Record<string, { tensors: [string, number[]][] }>;
  return (manifest[file]?.tensors ?? []).reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

async function snapshot(folder: string): Promise<readonly string[]> {
  const names = (await readdir(folder, { recursive: true })).sort();
  return Promise.all(names.map(async (name) => `${name} ${(await stat(join(folder, name))).mtimeMs}`));
}

describe('an SDXL folder', () => {
  it('is told by its files alone, and nothing is written near it', async () => {
    const folder = await copyOfTiny();
    const before = await snapshot(dirname(folder));
    const { info, networks } = await inspectSdxl({ path: folder });
    await pictureOf(folder);
    expect(info).toMatchObject({
      family: 'sdxl',
      storage: 'F16',
      predictionType: 'epsilon',
      nativeWidth: 64,
      nativeHeight: 64,
      sizeMultiple: 8,
    });
    expect(networks.unet.parameters).toBe(await parametersOfManifest(UNET));
    expect(await snapshot(dirname(folder))).toEqual(before);
  });

  it('gives the same picture sharded, and as the Hugging Face cache lays it out in symbolic links', async () => {
    const plain = await copyOfTiny();
    const expected = await pictureOf(plain);
    const sharded = await copyOfTiny();
    const { header, data } = await readEntries(join(sharded, UNET));
    const names = Object.keys(header);
    const shards = [names.filter((_, i) => i % 2 === 0), names.filter((_, i) => i % 2 === 1)];
    const weightMap: Record<string, string> = {};
    for (const [i, shard] of shards.entries()) {
      const file = `diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`;
      await writeShard(join(sharded, 'unet', file), shard, header, data);
      for (const name of shard) weightMap[name] = file;
    }
    await rm(join(sharded, UNET));
    await writeFile(join(sharded, `${UNET}.index.json`), JSON.stringify({ metadata: {}, weight_map: weightMap }));
    expect(await pictureOf(sharded)).toEqual(expected);

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
    expect(await pictureOf(revision)).toEqual(expected);
  });

  it('works in BF16 and F32', async () => {
    const folder = await tempFolder();
    const f32 = await pictureOf(await writeTinySdxl(join(folder, 'f32'), 'F32'));
    const bf16 = await pictureOf(await writeTinySdxl(join(folder, 'bf16'), 'BF16'));
    const f16 = await pictureOf(inject('tinySdxl'));
    const mean = (a: Uint8Array, b: Uint8Array) =>
      a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] ?? 0)), 0) / a.length;
    // The same weights, rounded to 11, 8 and 24 bits.
    expect(mean(f32, f16)).toBeGreaterThan(0);
    expect(mean(f32, f16)).toBeLessThan(2);
    expect(mean(f32, bf16)).toBeLessThan(12);
  });

  it('lists missing, mis-shaped, wrongly typed and spare tensors of all networks together', async () => {
    const folder = await copyOfTiny();
    const { header, data } = await readEntries(join(folder, UNET));
    const { 'conv_in.bias': bias, 'conv_out.bias': out, 'time_embedding.linear_1.bias': time, ...rest } = header;
    if (bias === undefined || out === undefined || time === undefined) throw new Error('the fixture changed');
    const changed = {
      ...rest,
      'conv_in.extra': bias,
      'conv_out.bias': { ...out, shape: [2, 2] },
      'time_embedding.linear_1.bias': { ...time, dtype: 'I16' },
    };
    await writeFile(join(folder, UNET), safetensorsBytes(changed, data));
    await rm(join(folder, 'vae/diffusion_pytorch_model.safetensors'));
    const { message, reason } = await inspectSdxl({ path: folder }).then(
      () => ({ message: '', reason: '' }),
      (error: { message: string; reason: string }) => error,
    );
    expect(reason).toBe('CHECKPOINT_INVALID');
    expect(message).toContain('unet: missing: conv_in.bias [32]');
    expect(message).toContain('unet: mis-shaped: conv_out.bias is [2, 2], must be [4]');
    expect(message).toContain('unet: wrong type: time_embedding.linear_1.bias is I16, must be one of F32, F16, BF16');
    expect(message).toContain('unet: spare: conv_in.extra F16 [32]');
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
      /unet\/config.json down_block_types.0: Invalid option/,
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
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message),
    });
  });
});
