import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { NetworkOpener } from '../../../src/pipelines/common/network-opener.js';
import { imageFromRgb, rgbFromImage } from '../../../src/pipelines/common/rgb-image.js';
import { resizeLatents } from '../../../src/pipelines/sdxl/second-pass.js';
import { Upscaler } from '../../../src/pipelines/upscalers/upscaler.js';
import { isUpscalerFile, readUpscalerFile } from '../../../src/pipelines/upscalers/upscaler-file.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { floatsFrom } from '../../../src/weights/half-floats.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { f32 } from '../../support/merged-lora.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, type Tensors, writeTensorFile } from '../../support/tensor-file.js';

type Case = { wrapper: string | null; scale: number; tensors: [name: string, shape: number[]][] };
const folder = new URL('../../fixtures/goldens/upscalers/', import.meta.url);
const cases: Record<string, Case> = JSON.parse(await readFile(new URL('cases.json', folder), 'utf8'));
const expected = await readTensorFile(fileURLToPath(new URL('expected.safetensors', folder)));
const numbers = (name: string) => {
  const { bytes, shape } = expected.get(name) ?? { bytes: new Uint8Array(), shape: [] };
  return { values: floatsFrom('F32', bytes), shape };
};

async function writeCase(name: string, change: (tensors: Tensors) => void = () => undefined): Promise<string> {
  const { tensors, wrapper } = cases[name] as Case;
  const path = join(await tempFolder(), `${name}.safetensors`);
  const prefix = wrapper === null ? '' : `${wrapper}.`;
  const all: Tensors = new Map(
    tensors.map(([key, shape]) => [prefix + key, f32(shape, hashTensor(`upscaler.${key}`, shape))]),
  );
  change(all);
  await writeTensorFile(path, all);
  return path;
}

const open = (path: string) => Upscaler.open(path, new NetworkOpener(cpuBackend, []));

async function upscaled(path: string, name: string): Promise<Float32Array> {
  const { values, shape } = numbers(`${name}.input`);
  const [, height = 0, width = 0] = shape;
  const upscaler = await open(path);
  const image = await upscaler.draw(
    values.map((value) => 2 * value - 1),
    { width, height },
  );
  await upscaler.release();
  return image.map((value) => value / 2 + 0.5);
}

const error = (a: Float32Array, b: Float32Array) =>
  a.length === b.length ? a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? 9))), 0) : 9;

describe('an upscaler', () => {
  it.each(Object.keys(cases))('%s draws what spandrel draws', async (name) => {
    const path = await writeCase(name);
    const { config } = await readUpscalerFile(path);
    expect(config.scale).toBe(cases[name]?.scale);
    const { values } = numbers(`${name}.output`);
    expect(error(await upscaled(path, name), values)).toBeLessThan(2e-6);
  });

  it('is read out of a file as torch.save writes it, the averaged weights first', async () => {
    const { config, files } = await readUpscalerFile(fileURLToPath(new URL('tiny.pth', folder)));
    expect(config).toMatchObject({ kind: 'compact', scale: 2, channels: 4, convolutions: 1 });
    const first = files.tensors.get('body.0.bias');
    expect(first?.shape).toEqual([4]);
    const bytes = (await readFile(files.path)).subarray(first?.offset ?? 0, (first?.offset ?? 0) + 16);
    expect([...floatsFrom('F32', Uint8Array.from(bytes))]).toEqual([1, 1, 1, 1]);
  });

  it('works in tiles: inside, the image is what one run draws', async () => {
    const upscaler = await open(await writeCase('esrgan-x2-old'));
    const size = { width: 300, height: 270 };
    const rgb = Uint8Array.from({ length: 3 * size.width * size.height }, (_, i) => (i * 31 + ((i * i) >> 7)) % 256);
    const full = { width: 2 * size.width, height: 2 * size.height };
    const whole = rgbFromImage(await upscaler.draw(imageFromRgb(rgb, size), size), full);
    const tiled = await upscaler.upscale(rgb, size);
    await upscaler.release();
    expect(tiled).toHaveLength(whole.length);
    const worst = whole.reduce((most, value, i) => Math.max(most, Math.abs(value - (tiled[i] ?? 999))), 0);
    // The network sees 20 pixels far, of which a pad has 16.
    expect(worst).toBeLessThanOrEqual(1);
  });

  it('ends when it is cancelled', async () => {
    const upscaler = await open(await writeCase('compact-x4'));
    const signal = AbortSignal.abort(new Error('enough'));
    const image = new Uint8Array(3 * 16 * 16);
    await expect(upscaler.upscale(image, { width: 16, height: 16 }, signal)).rejects.toThrow('enough');
    await upscaler.release();
  });

  it.each<[string, string, (tensors: Tensors) => void, string, RegExp]>([
    [
      'a layer is missing',
      'esrgan-x4-old',
      (all) => all.delete('model.3.bias'),
      'CHECKPOINT_INVALID',
      /conv_up1\.bias/,
    ],
    [
      'a layer is more',
      'realesrgan-x2',
      (all) => all.set('body.0.rdb1.conv1x1.weight', f32([8, 8, 1, 1], new Float32Array(64))),
      'MODEL_UNSUPPORTED',
      /has body\.0\.rdb1\.conv1x1\.weight/,
    ],
    [
      'it is a transformer',
      'realesrgan-x2',
      (all) => all.set('layers.0.attn.qkv.weight', f32([1], new Float32Array(1))),
      'MODEL_UNSUPPORTED',
      /is a transformer/,
    ],
    [
      'a layer has a number that no network has',
      'compact-x3',
      (all) => all.set('body.9000000000000000.weight', f32([27, 8, 3, 3], new Float32Array(27 * 8 * 9))),
      'MODEL_UNSUPPORTED',
      /has 4499999999999999 convolutions between its first and its last, must have at most 64/,
    ],
    ['it is something else', 'compact-x3', (all) => all.delete('body.1.weight'), 'MODEL_UNSUPPORTED', /is no upscaler/],
  ])('is refused by name where %s', async (_, name, change, reason, message) => {
    const path = await writeCase(name, change);
    await expect(open(path)).rejects.toMatchObject({ reason, message: expect.stringMatching(message) });
  });

  it('is told from other files by its keys', async () => {
    for (const { tensors } of Object.values(cases)) expect(isUpscalerFile(tensors.map(([key]) => key))).toBe(true);
    expect(isUpscalerFile(['conv_in.weight', 'down_blocks.0.resnets.0.conv1.weight'])).toBe(false);
    const path = join(await tempFolder(), 'broken.pth');
    await writeFile(path, 'no zip');
    await expect(readUpscalerFile(path)).rejects.toThrow(path);
  });
});

describe('latents in another size', () => {
  it.each([
    [9, 13],
    [10, 14],
    [4, 6],
  ])("are torch's: 5x7 to %ix%i", (height, width) => {
    const resized = resizeLatents(numbers('bilinear.input').values, { width: 7, height: 5 }, { width, height });
    expect(error(resized, numbers(`bilinear.${height}x${width}`).values)).toBeLessThan(2e-6);
  });
});
