import { cp, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readWanConfig } from '../pipelines/wan/checkpoint/read-config.js';
import { LATENTS_MEAN_2_2, LATENTS_STD_2_2 } from '../pipelines/wan/model/config.js';
import { planWanWeights } from '../pipelines/wan/weights.js';
import { makeFolder } from '../std/make-folder.js';
import type { FloatType } from '../weights/safetensors.js';
import { findAsset } from './assets.js';
import type { SyntheticWanSize } from './sizes.js';
import { writeHashSafetensors } from './write-safetensors.js';

/** The fields in which the released model is larger than the tiny one. https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers */
const wan13B = {
  'transformer/config.json': {
    num_attention_heads: 12,
    attention_head_dim: 128,
    num_layers: 30,
    ffn_dim: 8960,
    text_dim: 4096,
    freq_dim: 256,
  },
  'vae/config.json': { base_dim: 96, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2 },
  'text_encoder/config.json': {
    vocab_size: 256384,
    d_model: 4096,
    d_kv: 64,
    d_ff: 10240,
    num_layers: 24,
    num_heads: 64,
    relative_attention_num_buckets: 32,
    relative_attention_max_distance: 128,
  },
} as const;

const vace = (layers: number) => ({
  'model_index.json': { _class_name: 'WanVACEPipeline', transformer: ['diffusers', 'WanVACETransformer3DModel'] },
  'transformer/config.json': {
    _class_name: 'WanVACETransformer3DModel',
    num_layers: layers,
    // Every second one, as in https://huggingface.co/Wan-AI/Wan2.1-VACE-1.3B
    vace_layers: Array.from({ length: Math.ceil(layers / 2) }, (_, i) => 2 * i),
    vace_in_channels: 96,
  },
});

/** @param image of the image encoder */
const imageToVideo = (width: number, image: object & { hidden_size: number }) => ({
  'model_index.json': {
    _class_name: 'WanImageToVideoPipeline',
    image_encoder: ['transformers', 'CLIPVisionModel'],
    image_processor: ['transformers', 'CLIPImageProcessor'],
  },
  'transformer/config.json': {
    in_channels: 36,
    out_channels: 16,
    image_dim: image.hidden_size,
    added_kv_proj_dim: width,
  },
  'image_encoder/config.json': image,
});

/** https://huggingface.co/Wan-AI/Wan2.1-T2V-14B-Diffusers, https://huggingface.co/Wan-AI/Wan2.1-I2V-14B-480P-Diffusers */
const wan14B = {
  ...wan13B,
  'transformer/config.json': {
    ...wan13B['transformer/config.json'],
    num_attention_heads: 40,
    num_layers: 40,
    ffn_dim: 13824,
  },
} as const;

/** https://huggingface.co/Wan-AI/Wan2.2-TI2V-5B-Diffusers */
const textImageToVideo = {
  'model_index.json': { expand_timesteps: true },
  'transformer/config.json': { in_channels: 48, out_channels: 48 },
  'vae/config.json': {
    is_residual: true,
    patch_size: 2,
    in_channels: 12,
    out_channels: 12,
    z_dim: 48,
    scale_factor_spatial: 16,
    latents_mean: LATENTS_MEAN_2_2,
    latents_std: LATENTS_STD_2_2,
  },
};

const wan5B = {
  ...wan13B,
  'transformer/config.json': {
    ...wan13B['transformer/config.json'],
    num_attention_heads: 24,
    num_layers: 30,
    ffn_dim: 14336,
  },
  'vae/config.json': { base_dim: 160, decoder_base_dim: 256, dim_mult: [1, 2, 4, 4], num_res_blocks: 2 },
} as const;

/** https://huggingface.co/alibaba-pai/Wan2.1-Fun-1.3B-Control */
const funControl = { 'transformer/config.json': { in_channels: 48 } };

const TINY_EYE = {
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  image_size: 28,
  patch_size: 14,
};

/** Changes to `assets/tiny-wan`, by file; later ones add to earlier ones. */
const CHANGES: Readonly<Record<SyntheticWanSize, readonly Readonly<Record<string, object>>[]>> = {
  'wan-tiny': [],
  'wan-1.3b': [wan13B],
  'wan-14b': [wan14B],
  'wan-vace-tiny': [vace(3)],
  'wan-vace-1.3b': [wan13B, vace(30)],
  'wan-i2v-tiny': [imageToVideo(48, TINY_EYE)],
  // The image encoder's defaults are the released one's.
  'wan-i2v-14b': [wan14B, imageToVideo(5120, { hidden_size: 1280 })],
  'wan-ti2v-tiny': [textImageToVideo, { 'vae/config.json': { base_dim: 4, decoder_base_dim: 8 } }],
  'wan-ti2v-5b': [wan5B, textImageToVideo],
  // By its layers it is told from image-to-video.
  'wan-fun-inp-tiny': [imageToVideo(48, TINY_EYE), { 'transformer/config.json': { num_layers: 30 } }],
  'wan-fun-inp-1.3b': [wan13B, imageToVideo(1536, { hidden_size: 1280 })],
  'wan-fun-control-tiny': [imageToVideo(48, TINY_EYE), funControl],
  'wan-fun-control-1.3b': [wan13B, imageToVideo(1536, { hidden_size: 1280 }), funControl],
};

/**
 * Makes a WAN of hash weights in diffusers' layout: the real architecture, file layout and names; its videos are noise. Does
 * nothing where one is already whole.
 *
 * @param isHollow its files have headers and sizes, but no weights
 * @param changes fields of its configurations, by file, beside those of its size
 * @returns the folder
 */
export async function writeSyntheticWan(
  folder: string,
  size: SyntheticWanSize,
  dtype: FloatType = 'BF16',
  isHollow = false,
  changes: Readonly<Record<string, object>> = {},
): Promise<string> {
  const last = join(folder, 'text_encoder', 'model.safetensors');
  if ((await stat(last).catch(() => undefined)) !== undefined) return folder;
  await makeFolder(folder);
  await cp(await findAsset('tiny-wan'), folder, { recursive: true });
  for (const [file, values] of [...CHANGES[size], changes].flatMap((each) => Object.entries(each))) {
    const path = join(folder, file);
    const config = JSON.parse(await readFile(path, 'utf8').catch(() => '{}')) as object;
    await makeFolder(dirname(path));
    await writeFile(path, JSON.stringify({ ...config, ...values }, null, 2));
  }
  const { transformer, vae, text_encoder, image_encoder } = planWanWeights(await readWanConfig(folder));
  // Released checkpoints hold the tower under the name that it has in a whole CLIP.
  const tower = image_encoder.map(([name, shape]) => [`vision_model.${name}`, shape] as const);
  for (const [file, hashPrefix, type, tensors] of [
    ['transformer/diffusion_pytorch_model.safetensors', 'a:transformer.', dtype, transformer],
    // The released VAE is float32.
    ['vae/diffusion_pytorch_model.safetensors', 'a:vae.', dtype === 'BF16' ? 'F32' : dtype, vae],
    ['image_encoder/model.safetensors', 'a:image_encoder.', dtype, tower],
    // The last one: where it is, all are.
    ['text_encoder/model.safetensors', 'a:text_encoder.', dtype, text_encoder],
  ] as const) {
    if (tensors.length === 0) continue;
    await makeFolder(dirname(join(folder, file)));
    await writeHashSafetensors(join(folder, file), { dtype: type, hashPrefix, tensors, isHollow });
  }
  return folder;
}
