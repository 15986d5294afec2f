import { cp, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openWanCheckpoint } from '../../../src/pipelines/wan/checkpoint/checkpoint.js';
import { readWanConfig } from '../../../src/pipelines/wan/checkpoint/read-config.js';
import { buildWanNetworks } from '../../../src/pipelines/wan/weights.js';
import { rebuildOriginal } from '../../conformance/wan-cases.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, type StoredTensor, writeTensorFile } from '../../support/tensor-file.js';
import { wanGoldens } from '../../support/tiny-wan.js';

const DIT = 'diffusion_pytorch_model.safetensors';
const VAE = 'Wan2.1_VAE.safetensors';
const T5 = 'models_t5_umt5-xxl-enc-bf16.pth';

let original: string;
beforeAll(async () => {
  original = await rebuildOriginal(wanGoldens, await mkdtemp(join(tmpdir(), 'darkroom-test-')));
  return () => rm(original, { recursive: true });
});

/** A folder with the three files, transformer and VAE changed or not. */
async function changed(
  changes: Readonly<Record<string, (tensors: Map<string, StoredTensor>) => Map<string, StoredTensor> | undefined>>,
  config?: object,
): Promise<string> {
  const folder = await tempFolder();
  await cp(join(original, T5), join(folder, T5));
  for (const file of [DIT, VAE]) {
    const tensors = await readTensorFile(join(original, file));
    const written = changes[file] === undefined ? tensors : changes[file](tensors);
    if (written !== undefined) await writeTensorFile(join(folder, file), written);
  }
  if (config !== undefined) await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  return folder;
}

const prefixed = (tensors: Map<string, StoredTensor>, prefix: string) =>
  new Map([...tensors].map(([name, tensor]) => [prefix + name, tensor]));

describe('the original layout', () => {
  it('has the names, shapes and configuration of the diffusers layout, translated', async () => {
    const manifest = JSON.parse(await readFile(join(wanGoldens, 'manifest.json'), 'utf8')) as Record<
      string,
      { tensors: [string, number[]][] }
    >;
    const checkpoint = await openWanCheckpoint({ path: original });
    expect(checkpoint.layout).toBe('original');
    expect(checkpoint.tokenizer).toBe(join(original, 'google', 'umt5-xxl'));
    const files = {
      transformer: 'transformer/diffusion_pytorch_model.safetensors',
      vae: 'vae/diffusion_pytorch_model.safetensors',
      text_encoder: 'text_encoder/model.safetensors',
    } as const;
    for (const [name, file] of Object.entries(files) as [keyof typeof files, string][]) {
      const { tensors } = await checkpoint.readWeights(name);
      const ours = [...tensors].map(([key, { shape }]) => `${key} ${shape}`).sort();
      expect(ours).toEqual(manifest[file]?.tensors.map(([key, shape]) => `${key} ${shape}`).sort());
    }
    const { transformer, vae, textEncoder } = await readWanConfig(join(wanGoldens, 'model-configs'));
    // null and absent, 1 and null are the same.
    expect(checkpoint.config.transformer).toEqual({
      ...transformer,
      image_dim: undefined,
      added_kv_proj_dim: undefined,
      pos_embed_seq_len: undefined,
    });
    expect(checkpoint.config.vae).toEqual({ ...vae, decoder_base_dim: vae.base_dim, patch_size: undefined });
    expect(checkpoint.config.textEncoder).toEqual(textEncoder);
  });

  it('accepts the prefix that ComfyUI saves, and unknown keys', async () => {
    const folder = await changed(
      { [DIT]: (tensors) => prefixed(tensors, 'model.diffusion_model.').set('model_type.note', note()) },
      { num_heads: 2 },
    );
    const checkpoint = await openWanCheckpoint({ path: folder });
    const { transformer } = await buildWanNetworks(checkpoint, cpuBackend.dialectsOf);
    expect(transformer.weights.parameters).toBeGreaterThan(0);
    expect(transformer.weights.spare).toEqual([]);
  });

  it('may be one file, with the other parts given', async () => {
    const folder = await changed({}, { num_heads: 2 });
    const elsewhere = await tempFolder();
    for (const file of [VAE, T5]) await rename(join(folder, file), join(elsewhere, file));
    const path = join(folder, DIT);
    await expect(openWanCheckpoint({ path })).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: `${folder} has no Wan2.1_VAE.pth (or Wan2.1_VAE.safetensors, wan_2.1_vae.safetensors); give one with --wan-vae FILE`,
    });
    const vae = join(elsewhere, VAE);
    await expect(openWanCheckpoint({ path, vae })).rejects.toThrow(/; give one with --wan-text-encoder FILE$/);
    const { layout, config } = await openWanCheckpoint({ path, vae, textEncoder: join(elsewhere, T5) });
    expect([layout, config.vae.base_dim, config.textEncoder.d_model]).toEqual(['original', 8, 32]);
  });

  it('lists the missing tensors of all parts, under diffusers names', async () => {
    const without = (name: string) => (tensors: Map<string, StoredTensor>) => {
      expect(tensors.delete(name)).toBe(true);
      return tensors;
    };
    const folder = await changed(
      { [DIT]: without('blocks.1.ffn.2.bias'), [VAE]: without('decoder.upsamples.4.shortcut.bias') },
      { num_heads: 2 },
    );
    const checkpoint = await openWanCheckpoint({ path: folder });
    await expect(buildWanNetworks(checkpoint, cpuBackend.dialectsOf)).rejects.toThrow(
      /transformer: missing: blocks\.1\.ffn\.net\.2\.bias \[48\]\n.*vae: missing: decoder\.up_blocks\.1\.resnets\.0\.conv_shortcut\.bias \[32\]$/,
    );
  });

  const only = (name: string) => () => new Map([[name, note()]]);
  const channels = (count: number) => (tensors: Map<string, StoredTensor>) => {
    const bytes = Buffer.alloc(48 * count * 4 * 2);
    return tensors.set('patch_embedding.weight', { dtype: 'BF16', shape: [48, count, 1, 2, 2], bytes });
  };
  const refused: readonly [string, Parameters<typeof changed>[0], object | undefined, string, RegExp][] = [
    [
      'a model with an unknown number of input channels',
      { [DIT]: channels(52) },
      { num_heads: 2 },
      'MODEL_UNSUPPORTED',
      /diffusion_pytorch_model\.safetensors describes a model of 52 input channels; darkroom serves text-to-video, VACE, image-to-video, Fun-InP and Fun-Control models of WAN 2\.1, and WAN 2\.2 5B$/,
    ],
    [
      'a Fun-Control model without an image encoder',
      { [DIT]: channels(48) },
      { num_heads: 2 },
      'MODEL_UNSUPPORTED',
      /safetensors describes a Fun-Control model that takes no images; darkroom serves /,
    ],
    [
      'another model that takes a reference image',
      { [DIT]: (tensors) => channels(36)(tensors).set('ref_conv.weight', note()) },
      { num_heads: 2 },
      'MODEL_UNSUPPORTED',
      /safetensors describes a model of 36 input channels that takes a reference image; darkroom serves /,
    ],
    [
      'a model that takes camera paths',
      { [DIT]: (tensors) => channels(32)(tensors).set('control_adapter.conv.weight', note()) },
      { num_heads: 2 },
      'MODEL_UNSUPPORTED',
      /safetensors is a Fun-Control-Camera model; darkroom serves /,
    ],
    ['a LoRA', { [DIT]: only('blocks.0.self_attn.q.lora_down.weight') }, undefined, 'MODEL_UNSUPPORTED', /is a LoRA/],
    [
      'a VAE',
      { [DIT]: only('decoder.conv1.weight') },
      undefined,
      'MODEL_UNSUPPORTED',
      /is a VAE; give the transformer/,
    ],
    ['something else', { [DIT]: only('foo') }, undefined, 'MODEL_UNSUPPORTED', /it is not a WAN transformer$/],
    [
      'a width of no whole heads, unless config.json tells their number',
      {},
      undefined,
      'CHECKPOINT_INVALID',
      /has a transformer 48 wide, not a multiple of 128, the width of a head; put its config\.json with num_heads beside it$/,
    ],
    [
      'a number of heads that does not divide the width',
      {},
      { num_heads: 5 },
      'CHECKPOINT_INVALID',
      /has a transformer 48 wide, which does not divide into the 5 heads of its config\.json$/,
    ],
    [
      'a VAE that is none',
      { [VAE]: only('foo') },
      { num_heads: 2 },
      'CHECKPOINT_INVALID',
      /Wan2\.1_VAE\.safetensors has no encoder\.conv_in\.weight; it is not whole, or not of a WAN$/,
    ],
  ];
  it.each(refused)('is refused: %s', async (_, changes, config, reason, message) => {
    const path = await changed(changes, config);
    await expect(openWanCheckpoint({ path })).rejects.toMatchObject({
      reason,
      message: expect.stringMatching(message),
    });
  });
});

function note(): StoredTensor {
  return { dtype: 'F32', shape: [0], bytes: Buffer.alloc(0) };
}
