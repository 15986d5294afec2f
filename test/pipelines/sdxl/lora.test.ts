import { cp, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, inject, it } from 'vitest';
import { type LoraSource, readLora } from '../../../src/pipelines/lora/read-lora.js';
import { readSdxlConfig } from '../../../src/pipelines/sdxl/checkpoint/read-config.js';
import { sdxlLoraNames } from '../../../src/pipelines/sdxl/lora-names.js';
import { writeTinySdxl } from '../../../src/synthetic/sdxl.js';
import { f32, factorsFor, mergeLora } from '../../support/merged-lora.js';
import { safetensorsBytes } from '../../support/safetensors-bytes.js';
import { sdxlImage } from '../../support/sdxl-image.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, type StoredTensor, type Tensors, writeTensorFile } from '../../support/tensor-file.js';

const lora = (name: string) =>
  fileURLToPath(new URL(`../../fixtures/goldens/sdxl-lora/${name}.safetensors`, import.meta.url));
const names = sdxlLoraNames(await readSdxlConfig(fileURLToPath(new URL('../../../assets/tiny-sdxl', import.meta.url))));

/** A copy of a LoRA with other tensors. */
async function changed(
  change: (tensors: Tensors) => void,
  from = 'attn.kohya',
  metadata: Readonly<Record<string, string>> = {},
): Promise<string> {
  const tensors = await readTensorFile(lora(from));
  change(tensors);
  const path = join(await tempFolder(), 'changed.safetensors');
  await writeTensorFile(path, tensors, metadata);
  return path;
}

/** The golden LoRA of PEFT in other names. */
const renamed = (rename: (key: string) => string) =>
  changed((tensors) => {
    const all = [...tensors];
    tensors.clear();
    for (const [key, tensor] of all) tensors.set(rename(key), tensor);
  }, 'attn.peft');

/** What a file adds to each weight: its factors' places in the file left out. */
async function scalesOf(path: string): Promise<ReadonlyMap<string, number>> {
  const { updates } = await readLora(path, names);
  return new Map(updates.map(({ component, key, update }) => [`${component}.${key}`, update.scale]));
}

const UNET = 'lora_unet_down_blocks_1_attentions_0_proj_in';
const f16 = (shape: readonly number[], bits = 0): StoredTensor => {
  const count = shape.reduce((product, dim) => product * dim, 1);
  return { dtype: 'F16', shape, bytes: Buffer.from(new Uint16Array(count).fill(bits).buffer) };
};

const imageWith = (loras: readonly LoraSource[]) => sdxlImage({ path: inject('wholeSdxl'), loras });

describe('readLora', () => {
  it.each([
    ['attn.kohya', 'kohya', 'lora_te1_…, diffusers block names'],
    ['attn.kohya_sgm', 'kohya', 'original block names'],
    ['attn.peft', 'peft', ''],
    ['conv.kohya_sgm', 'kohya', 'convolutions too'],
  ])('reads %s: every key matches', async (name, format) => {
    const file = await readLora(lora(name), names);
    expect([file.header.base, file.header.format, file.header.rank, file.unmatched]).toEqual(['SDXL', format, 4, []]);
    expect(file.updates).toHaveLength(name.startsWith('conv') ? 243 : 234);
  });

  it.each([
    [
      "diffusers' trainer of 2023",
      (key: string) =>
        key
          .replace(/\.(to_[qkv])\.lora_A\./, '.processor.$1_lora.down.')
          .replace(/\.(to_[qkv])\.lora_B\./, '.processor.$1_lora.up.')
          .replace(/\.to_out\.0\.lora_A\./, '.processor.to_out_lora.down.')
          .replace(/\.to_out\.0\.lora_B\./, '.processor.to_out_lora.up.')
          .replace(/\.self_attn\.([qkv])_proj\.lora_A\./, '.self_attn.to_$1_lora.down.')
          .replace(/\.self_attn\.([qkv])_proj\.lora_B\./, '.self_attn.to_$1_lora.up.')
          .replace(/\.self_attn\.out_proj\.lora_A\./, '.self_attn.to_out_lora.down.')
          .replace(/\.self_attn\.out_proj\.lora_B\./, '.self_attn.to_out_lora.up.'),
    ],
    ['a UNet saved alone', (key: string) => key.replace(/^unet\./, '')],
    ['parameters', (key: string) => key.replace(/\.weight$/, '')],
    ['a named adapter', (key: string) => key.replace(/\.weight$/, '.default.weight')],
    [
      'ComfyUI',
      (key: string) =>
        key
          .replace(/^text_encoder\./, 'text_encoders.clip_l.transformer.')
          .replace(/^text_encoder_2\./, 'text_encoders.clip_g.transformer.'),
    ],
  ] as const)('reads the names of %s', async (_, rename) => {
    const plain = await readLora(lora('attn.peft'), names);
    const file = await readLora(await renamed(rename), names);
    expect(file.unmatched).toEqual([]);
    const keysOf = ({ updates }: typeof file) => updates.map(({ component, key }) => `${component}.${key}`).sort();
    expect(keysOf(file)).toEqual(keysOf(plain));
  });

  it('reads the original block names with dots', async () => {
    const [name, module] = ['diffusion_model.input_blocks.4.1.proj_in', 'unet.down_blocks.1.attentions.0.proj_in'];
    const path = await changed((tensors) => {
      const [down, up] = ['lora_down', 'lora_up'].map((part) => tensors.get(`${UNET}.${part}.weight`) ?? f16([1]));
      tensors.clear();
      tensors.set(`${name}.lora_A.weight`, down ?? f16([1])).set(`${name}.lora_B.weight`, up ?? f16([1]));
    });
    expect([...(await scalesOf(path)).keys()]).toEqual([`${module}.weight`]);
  });

  it("takes diffusers' names where a file has both, and lists the others", async () => {
    const path = await changed((tensors) => {
      for (const part of ['lora_up', 'lora_down'])
        tensors.set(`lora_unet_input_blocks_4_1_proj_in.${part}.weight`, f16([9, 9], 0x7e00));
    });
    const file = await readLora(path, names);
    expect(file.updates).toHaveLength(234);
    expect([...file.unmatched].sort()).toEqual(
      ['lora_down', 'lora_up'].map((part) => `lora_unet_input_blocks_4_1_proj_in.${part}.weight`),
    );
  });

  it.each([
    ['I64', Buffer.from(new BigInt64Array([2n]).buffer)],
    ['I32', Buffer.from(new Int32Array([2]).buffer)],
    ['F64', Buffer.from(new Float64Array([2]).buffer)],
    ['BF16', Buffer.from([0x00, 0x40])],
  ])('reads an alpha of type %s', async (dtype, bytes) => {
    const path = await changed((tensors) => tensors.set(`${UNET}.alpha`, { dtype, shape: [], bytes }));
    expect((await scalesOf(path)).get('unet.down_blocks.1.attentions.0.proj_in.weight')).toBe(2 / 4);
  });

  it('leaves out a module of rank 0', async () => {
    const path = await changed((tensors) => {
      const columns = tensors.get(`${UNET}.lora_down.weight`)?.shape[1] ?? 0;
      const rows = tensors.get(`${UNET}.lora_up.weight`)?.shape[0] ?? 0;
      tensors.set(`${UNET}.lora_down.weight`, f16([0, columns])).set(`${UNET}.lora_up.weight`, f16([rows, 0]));
    });
    expect((await readLora(path, names)).updates).toHaveLength(233);
  });

  it('takes alphas from the settings in the header: for each component, for single modules, rank-stabilised', async () => {
    const settings = {
      'unet.r': 4,
      'unet.lora_alpha': 8,
      'unet.alpha_pattern': { '^mid_block.attentions.0.proj_in': 1, 'attn2.to_k': 3 },
      'text_encoder.r': 4,
      'text_encoder.lora_alpha': 6,
      'text_encoder.use_rslora': true,
    };
    const metadata = { lora_adapter_metadata: JSON.stringify(settings) };
    const scales = await scalesOf(await changed(() => undefined, 'attn.peft', metadata));
    const block = 'unet.mid_block.attentions.0';
    expect([
      scales.get(`${block}.proj_out.weight`),
      scales.get(`${block}.proj_in.weight`),
      scales.get('unet.down_blocks.1.attentions.0.proj_in.weight'),
      scales.get(`${block}.transformer_blocks.0.attn2.to_k.weight`),
      scales.get('text_encoder.text_model.encoder.layers.0.self_attn.q_proj.weight'),
      scales.get('text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.weight'),
    ]).toEqual([8 / 4, 1 / 4, 8 / 4, 3 / 4, 6 / Math.sqrt(4), 1]);
  });

  it.each([
    ['not JSON', '{', 'CHECKPOINT_INVALID', /has lora_adapter_metadata in its header that is not a JSON object/],
    [
      'an alpha that is no number',
      '{"unet.lora_alpha":"8"}',
      'CHECKPOINT_INVALID',
      /unet\.lora_alpha: must be a number/,
    ],
    [
      'a pattern that is no name',
      '{"unet.alpha_pattern":{"(a+)+":1}}',
      'CHECKPOINT_INVALID',
      /the pattern "\(a\+\)\+"/,
    ],
  ])('refuses settings in the header: %s', async (_, text, reason, message) => {
    const path = await changed(() => undefined, 'attn.peft', { lora_adapter_metadata: text });
    await expect(readLora(path, names)).rejects.toMatchObject({
      reason,
      message: expect.stringMatching(message) as string,
    });
  });

  it('lists unmatched keys', async () => {
    const path = await changed((tensors) => tensors.set('lora_unet_nowhere.lora_up.weight', f16([4, 4])));
    expect((await readLora(path, names)).unmatched).toEqual(['lora_unet_nowhere.lora_up.weight']);
  });

  it.each([
    ['OFT', 'lora_unet_x.oft_blocks', 'is OFT; darkroom takes LoRA, DoRA, LoHa and LoKr'],
    [
      'one of SD 1.5',
      'lora_te_text_model_x.lora_up.weight',
      'is a LoRA for Stable Diffusion 1 or 2; this model is SDXL',
    ],
  ])('refuses %s by its name', async (_, key, problem) => {
    const path = await changed((tensors) => tensors.set(key, f16([4, 4])));
    await expect(readLora(path, names)).rejects.toMatchObject({
      reason: 'MODEL_UNSUPPORTED',
      message: `${path} ${problem}`,
    });
  });

  it('refuses a file that ends early', async () => {
    const path = await changed(() => undefined);
    await truncate(path, 200_000);
    await expect(readLora(path, names)).rejects.toThrow(/is truncated: tensor ".*" ends at byte/);
  });

  it('rejects a module without its other half, and a duplicate module', async () => {
    const half = await changed((tensors) => tensors.delete(`${UNET}.lora_up.weight`));
    await expect(readLora(half, names)).rejects.toThrow(
      'unet.down_blocks.1.attentions.0.proj_in.weight has no lora_up',
    );
    const twice = await changed((tensors) =>
      tensors.set(
        'unet.down_blocks.1.attentions.0.proj_in.lora_B.weight',
        tensors.get(`${UNET}.lora_up.weight`) ?? f16([1, 1]),
      ),
    );
    await expect(readLora(twice, names)).rejects.toThrow(
      /unet\.down_blocks\.1\.attentions\.0\.proj_in\.weight is there twice/,
    );
  });

  it('refuses a NaN', async () => {
    const path = await changed((tensors) => {
      const { shape = [] } = tensors.get(`${UNET}.lora_up.weight`) ?? {};
      tensors.set(`${UNET}.lora_up.weight`, f16(shape, 0x7e00));
    });
    await expect(readLora(path, names)).rejects.toThrow(`has a NaN or an infinity in ${UNET}.lora_up.weight`);
  });

  it('refuses a file that is no LoRA of an SDXL', async () => {
    const path = join(await tempFolder(), 'other.safetensors');
    await writeFile(
      path,
      safetensorsBytes({ foo: { dtype: 'F16', shape: [1], data_offsets: [0, 2] } }, Buffer.alloc(2)),
    );
    await expect(readLora(path, names)).rejects.toThrow(`${path} has no LoRA keys; it begins with "foo"`);
  });
});

describe('a LoRA in the graph', () => {
  it('refuses ranks that differ and shapes of another base, all together', async () => {
    const path = await changed((tensors) => {
      tensors.set(`${UNET}.lora_down.weight`, f16([8, 64]));
      tensors.set('lora_unet_mid_block_attentions_0_proj_in.lora_down.weight', f16([4, 96]));
    });
    await expect(imageWith([{ path, weight: 1 }])).rejects.toThrow(
      /down_blocks\.1\.attentions\.0\.proj_in\.weight: its two factors have the ranks 8 and 4\n.*mid_block\.attentions\.0\.proj_in\.weight: its factors make \[128, 96\], the weight is \[128, 128\]/s,
    );
  });

  it('changes the image more with a higher weight, and not at all at weight 0', async () => {
    const bare = await imageWith([]);
    const at = (weight: number) => imageWith([{ path: lora('attn.kohya'), weight }]);
    expect(await at(0)).toEqual(bare);
    const distance = (image: Uint8Array) => image.reduce((sum, value, i) => sum + Math.abs(value - (bare[i] ?? 0)), 0);
    const [light, heavy] = [distance(await at(0.05)), distance(await at(1))];
    expect(light).toBeGreaterThan(0);
    expect(heavy).toBeGreaterThan(light);
  });

  it('adds up with another LoRA, whatever their formats', async () => {
    const [kohya, peft] = [lora('attn.kohya'), lora('attn.peft')];
    const halves = await imageWith([
      { path: kohya, weight: 0.5 },
      { path: peft, weight: 0.5 },
    ]);
    const whole = await imageWith([{ path: kohya, weight: 1 }]);
    expect(halves.reduce((most, value, i) => Math.max(most, Math.abs(value - (whole[i] ?? 0))), 0)).toBeLessThanOrEqual(
      2,
    );
  });

  it('adds up * down by weight and alpha / rank, whatever the rank, to layers of every kind', async () => {
    const modules = {
      unet: [
        'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q',
        'mid_block.resnets.0.conv1',
        'up_blocks.0.resnets.0.conv_shortcut',
        'add_embedding.linear_1',
        'conv_in',
      ],
      text_encoder: ['text_model.encoder.layers.0.self_attn.k_proj'],
      text_encoder_2: ['text_model.encoder.layers.0.mlp.fc1', 'text_projection'],
    } as const;
    const prefixes = { unet: 'lora_unet_', text_encoder: 'lora_te1_', text_encoder_2: 'lora_te2_' } as const;
    const files = { unet: 'diffusion_pytorch_model', text_encoder: 'model', text_encoder_2: 'model' } as const;
    const [rank, alpha, weight, textEncoderWeight] = [5, 2, -0.75, 0.5];
    const plain = await writeTinySdxl(join(await tempFolder(), 'plain'), 'F32');
    const merged = join(await tempFolder(), 'merged');
    await cp(plain, merged, { recursive: true });
    const tensors: Tensors = new Map();
    for (const component of ['unet', 'text_encoder', 'text_encoder_2'] as const) {
      const file = join(merged, component, `${files[component]}.safetensors`);
      const weights = await readTensorFile(file);
      const factors = factorsFor(weights, modules[component], rank);
      mergeLora(weights, factors, ((component === 'unet' ? weight : textEncoderWeight) * alpha) / rank);
      await writeTensorFile(file, weights);
      for (const { module, down, up } of factors) {
        const name = prefixes[component] + module.replaceAll('.', '_');
        tensors.set(`${name}.lora_down.weight`, f32(down.shape, down.values));
        tensors.set(`${name}.lora_up.weight`, f32(up.shape, up.values));
        tensors.set(`${name}.alpha`, f32([], Float32Array.of(alpha)));
      }
    }
    const path = join(await tempFolder(), 'lora.safetensors');
    await writeTensorFile(path, tensors);
    const expected = await sdxlImage({ path: merged });
    const farthest = (image: Uint8Array) =>
      image.reduce((most, value, i) => Math.max(most, Math.abs(value - (expected[i] ?? 0))), 0);
    const loras = [{ path, weight, textEncoderWeight }];
    expect(farthest(await sdxlImage({ path: plain, loras }))).toBeLessThanOrEqual(2);
    expect(farthest(await sdxlImage({ path: plain }))).toBeGreaterThan(2);
  });

  it('leaves the text encoders alone where their weight is 0', async () => {
    const path = lora('attn.kohya');
    expect(await imageWith([{ path, weight: 1, textEncoderWeight: 0 }])).not.toEqual(
      await imageWith([{ path, weight: 1 }]),
    );
  });
});
