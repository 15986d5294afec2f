import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import type { SdxlSource } from '../../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { inspectSdxl } from '../../../src/pipelines/sdxl/inspect.js';
import { openPromptTokenizer } from '../../../src/pipelines/sdxl/prompt/tokenize.js';
import { writeSyntheticSdxl, writeTinySdxl } from '../../../src/synthetic/sdxl.js';
import { float8Types } from '../../../src/weights/float8.js';
import { readSafetensors } from '../../../src/weights/safetensors.js';
import { allInFloat8, inFloat8 } from '../../support/float8.js';
import { f32 } from '../../support/merged-lora.js';
import { publishedRows } from '../../support/published-rows.js';
import { sdxlImage } from '../../support/sdxl-image.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, type StoredTensor, type Tensors, writeTensorFile } from '../../support/tensor-file.js';

/** One tiny model in the original layout, its tokenizers beside it. */
let file: string;
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  file = await writeSyntheticSdxl(join(folder, 'tiny.safetensors'), 'sdxl-tiny');
  return () => rm(folder, { recursive: true });
});

/** A copy of the model with other tensors or metadata, its tokenizers with it. */
async function changed(
  change: (file: { tensors: Tensors; metadata: Record<string, string> }) => void,
): Promise<string> {
  const content = { tensors: await readTensorFile(file), metadata: {} };
  change(content);
  const path = join(await tempFolder(), 'changed.safetensors');
  await writeTensorFile(path, content.tensors, content.metadata);
  for (const name of ['tokenizer', 'tokenizer_2']) {
    await cp(join(dirname(file), name), join(dirname(path), name), { recursive: true });
  }
  return path;
}

const imageOf = (source: SdxlSource) => sdxlImage(source, { negativePrompt: 'blurry' });

const empty = (): StoredTensor => ({
  dtype: 'F16',
  shape: [0],
  bytes: Buffer.alloc(0),
});

describe('a single file in the original layout', () => {
  it('has the names and shapes of the reference', async () => {
    const manifest = new URL('../../fixtures/goldens/sdxl-tiny-single/manifest.json', import.meta.url);
    const { tensors } = JSON.parse(await readFile(fileURLToPath(manifest), 'utf8')) as {
      tensors: [string, number[]][];
    };
    const ours = [...(await readSafetensors(file)).tensors].map(([name, { shape }]) => `${name} ${shape}`);
    // Neither of these is a weight.
    const idle = /position_ids|logit_scale/;
    const theirs = tensors.map(([name, shape]) => `${name} ${shape}`).filter((line) => !idle.test(line));
    expect(ours.sort()).toEqual(theirs.sort());
  });

  it('is described by its shapes alone', async () => {
    const { layout, info } = await inspectSdxl({ path: file });
    expect(layout).toBe('original');
    expect(info).toMatchObject({ nativeWidth: 1024, sizeMultiple: 8, predictionType: 'epsilon', storage: 'F16' });
    expect(info.unused).toEqual([]);
  });

  it('tolerates training keys and lists them', async () => {
    const path = await changed(({ tensors }) => {
      for (const name of ['model_ema.decay', 'denoiser.sigmas', 'model.diffusion_model.extra.weight'])
        tensors.set(name, empty());
    });
    const { info } = await inspectSdxl({ path });
    expect(info.unused).toEqual(['model_ema.decay', 'denoiser.sigmas', 'model.diffusion_model.extra.weight']);
    expect(await imageOf({ path })).toEqual(await imageOf({ path: file }));
  });

  it('reads a projection with .weight as a Linear, and a bare one transposed', async () => {
    const key = 'conditioner.embedders.1.model.text_projection';
    const path = await changed(({ tensors }) => {
      const { shape: [rows = 0, columns = 0] = [], dtype, bytes } = tensors.get(key) ?? empty();
      const [from, to] = [new Uint16Array(Uint8Array.from(bytes).buffer), new Uint16Array(rows * columns)];
      for (const i of to.keys()) to[i] = from[(i % rows) * columns + Math.floor(i / rows)] ?? 0;
      tensors.delete(key);
      tensors.set(`${key}.weight`, { dtype, shape: [columns, rows], bytes: Buffer.from(to.buffer) });
    });
    expect(await imageOf({ path })).toEqual(await imageOf({ path: file }));
  });

  it('stays a checkpoint with a stray key of something else, and lists it', async () => {
    const stray = ['lora_unet_mid.lora_up.weight', 'cond_stage_model.x', 'conditioner.embedders.0.model.x'];
    const path = await changed(({ tensors }) => {
      for (const key of stray) tensors.set(key, empty());
    });
    expect((await inspectSdxl({ path })).info.unused).toEqual(stray);
  });

  it.each(['edm_vpred.sigma_max', 'edm_vpred.sigma_min', 'edm_mean', 'edm_std'])(
    'refuses a model that was trained with EDM preconditioning by its marker %s',
    async (key) => {
      const path = await changed(({ tensors }) => tensors.set(key, empty()));
      await expect(inspectSdxl({ path })).rejects.toMatchObject({
        reason: 'MODEL_UNSUPPORTED',
        message: `${path} was trained with EDM preconditioning (it has ${key}), as CosXL and Playground 2.5 are; darkroom samples models that predict noise or v`,
      });
    },
  );

  it('refuses a prediction type that it does not sample', async () => {
    const path = await changed(({ metadata }) => Object.assign(metadata, { 'modelspec.prediction_type': 'flow' }));
    await expect(inspectSdxl({ path })).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: `${path} predicts "flow" (modelspec.prediction_type in its header); darkroom samples models that predict noise or v`,
    });
  });

  it('refuses a distilled UNet by name', async () => {
    const path = await changed(({ tensors }) => {
      for (const key of [...tensors.keys()])
        if (key.startsWith('model.diffusion_model.middle_block.1.')) tensors.delete(key);
    });
    await expect(inspectSdxl({ path })).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: expect.stringContaining('a distilled SDXL such as SSD-1B') as string,
    });
  });

  it('lists what is missing', async () => {
    const path = await changed(({ tensors }) => {
      tensors.delete('model.diffusion_model.out.2.bias');
      tensors.delete('conditioner.embedders.1.model.ln_final.weight');
    });
    await expect(inspectSdxl({ path })).rejects.toThrow(
      /text_encoder_2: missing: text_model\.final_layer_norm\.weight \[64\]\n.*unet: missing: conv_out\.bias \[4\]/,
    );
  });

  it.each([
    ['a key', { key: 'v_pred' }, {}, 'v_prediction'],
    ['its metadata', { metadata: { 'modelspec.prediction_type': 'v' } }, {}, 'v_prediction'],
    ['the operator', {}, { predictionType: 'v_prediction' }, 'v_prediction'],
    ['the operator, against a key', { key: 'v_pred' }, { predictionType: 'epsilon' }, 'epsilon'],
  ] as const)('takes what it predicts from %s', async (_, told, said, expected) => {
    const path = await changed(({ tensors, metadata }) => {
      if ('key' in told) tensors.set(told.key, empty());
      if ('metadata' in told) Object.assign(metadata, told.metadata);
    });
    expect((await inspectSdxl({ path, ...said })).info.predictionType).toBe(expected);
  });

  it('samples from the last timestep with zero terminal SNR', async () => {
    const path = await changed(({ tensors }) => {
      tensors.set('v_pred', empty());
      tensors.set('ztsnr', empty());
    });
    const plain = await imageOf({ path, zeroTerminalSnr: false });
    expect(await imageOf({ path })).not.toEqual(plain);
    expect(await imageOf({ path, zeroTerminalSnr: true })).toEqual(await imageOf({ path }));
  });

  it('uses the published vocabulary where no tokenizer is given or lies beside the file', async () => {
    const path = join(await tempFolder(), 'published.safetensors');
    await writeTensorFile(path, publishedRows(await readTensorFile(file)), {});
    expect((await inspectSdxl({ path })).layout).toBe('original');
    const { encoders } = (await openPromptTokenizer({ path })).tokenize('a (red:1.2) circle', 'weighted');
    expect(encoders.map(({ tokens }) => tokens)).toEqual([3, 3]);
    const image = await imageOf({ path });
    expect(image).toHaveLength(64 * 64 * 3);
    // Other ids, other states: a folder that is given wins.
    expect(await imageOf({ path, tokenizer: join(dirname(file), 'tokenizer') })).not.toEqual(image);
    for (const name of ['tokenizer', 'tokenizer_2'])
      await cp(join(dirname(file), name), join(dirname(path), name), { recursive: true });
    expect(await imageOf({ path })).not.toEqual(image);
  });

  it('inspects a full-size file with its path alone', async () => {
    const path = join(await tempFolder(), 'base.safetensors');
    await writeSyntheticSdxl(path, 'sdxl-base', 'F16', true);
    expect(await readdir(dirname(path))).toEqual(['base.safetensors']);
    const { info } = await inspectSdxl({ path });
    expect(info).toMatchObject({ nativeWidth: 1024, storage: 'F16', unused: [] });
    expect((await openPromptTokenizer({ path })).tokenize('a red circle', 'plain').report.tokens).toBe(3);
  });

  it('names the remedy where the text encoder has another vocabulary', async () => {
    const alone = join(await tempFolder(), 'alone.safetensors');
    await cp(file, alone);
    const message = `${alone} has a text encoder of 859 tokens, CLIP's published vocabulary has 49408; give the folder of the model's own tokenizer with --tokenizer FOLDER`;
    await expect(inspectSdxl({ path: alone })).rejects.toMatchObject({ reason: 'CHECKPOINT_INVALID', message });
    await expect(imageOf({ path: alone })).rejects.toThrow(message);
    // The folder of one tokenizer serves both encoders.
    const tokenizer = join(dirname(file), 'tokenizer');
    expect(await imageOf({ path: alone, tokenizer })).toEqual(await imageOf({ path: file }));
  });

  it('accepts a separate VAE and separate text encoders, in either layout', async () => {
    const tensors = await readTensorFile(file);
    const part = (prefix: string, keep = '') =>
      new Map(
        [...tensors].filter(([key]) => key.startsWith(prefix)).map(([key, t]) => [keep + key.slice(prefix.length), t]),
      );
    const folder = await tempFolder();
    const [vae, clipL, clipG] = [join(folder, 'vae'), join(folder, 'l'), join(folder, 'g')].map(
      (name) => `${name}.safetensors`,
    );
    await writeTensorFile(vae ?? '', part('first_stage_model.'));
    await writeTensorFile(clipL ?? '', part('conditioner.embedders.0.transformer.'));
    await writeTensorFile(clipG ?? '', part('conditioner.embedders.1.model.'));
    // A checkpoint that was pruned to its UNet.
    const path = await changed((content) => {
      for (const key of content.tensors.keys())
        if (!key.startsWith('model.diffusion_model.')) content.tensors.delete(key);
    });
    await expect(inspectSdxl({ path })).rejects.toThrow(
      /has no conditioner\.embedders\.0\.transformer\.\* tensors; give a file that has them with --text-encoder FILE/,
    );
    const whole = { path, vae, textEncoder: clipL, textEncoder2: clipG };
    expect(await imageOf(whole)).toEqual(await imageOf({ path: file }));
    // A diffusers folder's VAE under another checkpoint: other weights, another image.
    const other = await writeTinySdxl(join(folder, 'other'));
    const replaced = await imageOf({ path: file, vae: join(other, 'vae') });
    expect(replaced).not.toEqual(await imageOf({ path: file }));
  });

  it.each([
    ['cond_stage_model.transformer.x', 'is a Stable Diffusion 1 or 2 checkpoint; darkroom serves SDXL'],
    ['conditioner.embedders.0.model.ln_final.weight', 'is the SDXL refiner; darkroom serves the base model'],
    ['model.diffusion_model.joint_blocks.0.x', 'is a Stable Diffusion 3 checkpoint; darkroom serves SDXL'],
    ['double_blocks.0.img_attn.qkv.weight', 'is a Flux checkpoint; darkroom serves SDXL'],
    ['lora_unet_mid_block.lora_down.weight', 'is a LoRA, not a checkpoint'],
    ['foo', 'has no model.diffusion_model.* tensors: it is not an SDXL checkpoint in the original key layout'],
  ])('names what it is instead: %s', async (key, problem) => {
    const path = join(await tempFolder(), 'other.safetensors');
    await writeTensorFile(path, new Map([[key, empty()]]));
    await expect(inspectSdxl({ path })).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: `${path} ${problem}`,
    });
  });

  it('takes an inpainting UNet, and refuses others by their channels', async () => {
    const path = await changed(({ tensors }) => {
      const old = tensors.get('model.diffusion_model.input_blocks.0.0.weight');
      if (old === undefined) throw new Error('no conv_in');
      const bytes = Buffer.concat([old.bytes, old.bytes, old.bytes.subarray(0, old.bytes.length / 4)]);
      tensors.set('model.diffusion_model.input_blocks.0.0.weight', { ...old, shape: [32, 9, 3, 3], bytes });
    });
    expect((await inspectSdxl({ path })).networks.unet.parameters).toBeGreaterThan(0);
    const edited = await changed(({ tensors }) => {
      const old = tensors.get('model.diffusion_model.input_blocks.0.0.weight');
      if (old === undefined) throw new Error('no conv_in');
      const bytes = Buffer.concat([old.bytes, old.bytes]);
      tensors.set('model.diffusion_model.input_blocks.0.0.weight', { ...old, shape: [32, 8, 3, 3], bytes });
    });
    await expect(inspectSdxl({ path: edited })).rejects.toThrow(
      /has a UNet of 8 input channels \(an InstructPix2Pix model\), darkroom serves UNets that take the VAE's 4, or 9 for inpainting$/,
    );
  });

  it.each(float8Types)('reads %s', async (type) => {
    let widened: Tensors = new Map();
    const path = await changed(({ tensors }) => {
      const [stored, wide] = allInFloat8(type, tensors);
      widened = wide;
      for (const [key, tensor] of stored) tensors.set(key, tensor);
    });
    const expected = await changed(({ tensors }) => {
      for (const [key, tensor] of widened) tensors.set(key, tensor);
    });
    expect((await inspectSdxl({ path })).info.storage).toBe(type);
    expect(await imageOf({ path })).toEqual(await imageOf({ path: expected }));
  });

  it.each([
    ['a number', () => []],
    ['a number for each row', (rows: number) => [rows]],
    ['a column of numbers', (rows: number) => [rows, 1]],
  ] as const)('multiplies 8-bit weights by %s that ComfyUI stores beside them', async (_, shapeOf) => {
    const key = 'model.diffusion_model.middle_block.1.proj_in';
    const scales = (tensor: StoredTensor) => {
      const shape = shapeOf(tensor.shape[0] ?? 0);
      return f32(
        shape,
        Float32Array.from({ length: shape[0] ?? 1 }, (__, i) => 1 + (i % 5)),
      );
    };
    const scaled = (tensor: StoredTensor) => {
      const [stored, wide] = inFloat8('F8_E4M3', tensor);
      const numbers = new Float32Array(Uint8Array.from(scales(tensor).bytes).buffer);
      const columns = tensor.shape[1] ?? 1;
      const values = new Float32Array(Uint8Array.from(wide.bytes).buffer).map(
        (value, i) => value * (numbers[numbers.length === 1 ? 0 : Math.floor(i / columns)] ?? 0),
      );
      return [stored, f32(tensor.shape, values)] as const;
    };
    const original = (tensors: Tensors) => tensors.get(`${key}.weight`) ?? empty();
    const path = await changed(({ tensors }) => {
      tensors.set(`${key}.scale_weight`, scales(original(tensors)));
      tensors.set(`${key}.weight`, scaled(original(tensors))[0]);
    });
    const expected = await changed(({ tensors }) => tensors.set(`${key}.weight`, scaled(original(tensors))[1]));
    expect(await imageOf({ path })).toEqual(await imageOf({ path: expected }));
    expect((await inspectSdxl({ path })).info.unused).toEqual([]);
  });

  it.each(['BF16', 'F32'] as const)('reads %s', async (dtype) => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'model.safetensors'), 'sdxl-tiny', dtype);
    const [theirs, ours] = [await imageOf({ path }), await imageOf({ path: file })];
    const far = theirs.filter((value, i) => Math.abs(value - (ours[i] ?? 0)) > 40);
    expect(far.length).toBeLessThan(theirs.length / 10);
  });
});
