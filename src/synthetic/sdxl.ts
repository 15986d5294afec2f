import { cp, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type ComponentName, componentNames } from '../pipelines/sdxl/checkpoint/checkpoint.js';
import { originalTensors } from '../pipelines/sdxl/checkpoint/original-names.js';
import { readSdxlConfig } from '../pipelines/sdxl/checkpoint/read-config.js';
import { planSdxlWeights } from '../pipelines/sdxl/weights.js';
import { makeFolder } from '../std/make-folder.js';
import type { FloatType } from '../weights/safetensors.js';
import { findAsset } from './assets.js';
import type { SyntheticSize } from './sizes.js';
import { type HashFile, writeHashSafetensors } from './write-safetensors.js';

const FILES: Readonly<Record<ComponentName, string>> = {
  text_encoder: 'model.safetensors',
  text_encoder_2: 'model.safetensors',
  unet: 'diffusion_pytorch_model.safetensors',
  vae: 'diffusion_pytorch_model.safetensors',
};

/**
 * Makes an SDXL of hash weights: the real architecture, file layout and names; its images are noise. Does nothing where one
 * is already whole.
 *
 * @param path a folder, or a file that ends in `.safetensors` for the original key layout. The tiny one's tokenizer lies beside
 *   it; the full-size one has CLIP's published vocabulary, as checkpoints have that are found on the web.
 * @param isHollow its files have headers and sizes, but no weights
 * @returns `path`
 */
export function writeSyntheticSdxl(
  path: string,
  size: SyntheticSize,
  dtype: FloatType = 'F16',
  isHollow = false,
): Promise<string> {
  const isFile = path.endsWith('.safetensors');
  const isTiny = size !== 'sdxl-base';
  const own = isTiny ? (isFile ? wideHeads : {}) : sdxlBase;
  const changes = size === 'sdxl-inpaint-tiny' ? withMask(own) : own;
  const files = { dtype, isHollow };
  return isFile ? writeSingleFile(path, files, changes, isTiny) : writeFolder(path, files, changes);
}

/**
 * The tiny one in diffusers' layout.
 * @param changes fields of its configurations, by file
 */
export function writeTinySdxl(folder: string, dtype: FloatType = 'F16', changes: Changes = {}): Promise<string> {
  return writeFolder(folder, { dtype }, changes);
}

/** The fields in which the released model is larger than the tiny one. https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0 */
const sdxlBase = {
  'unet/config.json': {
    sample_size: 128,
    block_out_channels: [320, 640, 1280],
    transformer_layers_per_block: [1, 2, 10],
    attention_head_dim: [5, 10, 20],
    cross_attention_dim: 2048,
    addition_time_embed_dim: 256,
    projection_class_embeddings_input_dim: 2816,
  },
  'text_encoder/config.json': {
    vocab_size: 49408,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    projection_dim: 768,
  },
  'text_encoder_2/config.json': {
    vocab_size: 49408,
    hidden_size: 1280,
    intermediate_size: 5120,
    num_hidden_layers: 32,
    num_attention_heads: 20,
    projection_dim: 1280,
  },
  'vae/config.json': { sample_size: 1024, block_out_channels: [128, 256, 512, 512] },
} as const;

/** In a single file heads are 64 wide, as in every published one. */
const wideHeads = {
  'unet/config.json': {
    block_out_channels: [32, 64, 128],
    attention_head_dim: [1, 1, 2],
    cross_attention_dim: 128,
    norm_num_groups: 32,
    addition_time_embed_dim: 8,
    projection_class_embeddings_input_dim: 64 + 6 * 8,
  },
  'text_encoder/config.json': { hidden_size: 64, intermediate_size: 256, num_attention_heads: 1, projection_dim: 64 },
  'text_encoder_2/config.json': { hidden_size: 64, intermediate_size: 256, num_attention_heads: 1, projection_dim: 64 },
  'vae/config.json': { norm_num_groups: 32, block_out_channels: [32, 32, 32, 32] },
} as const;

type Changes = Readonly<Record<string, object>>;

/** The same with a UNet that takes the mask and the latents of the rest beside the latents. */
function withMask(changes: Changes): Changes {
  return { ...changes, 'unet/config.json': { ...changes['unet/config.json'], in_channels: 9 } };
}

type Files = Pick<HashFile, 'dtype' | 'isHollow'>;

async function writeFolder(folder: string, files: Files, changes: Changes): Promise<string> {
  if (await exists(join(folder, 'vae', FILES.vae))) return folder;
  await makeFolder(folder);
  const plan = await planIn(folder, changes);
  for (const name of componentNames) {
    const hashPrefix = `a:${name}.`;
    await writeHashSafetensors(join(folder, name, FILES[name]), { ...files, hashPrefix, tensors: plan[name] });
  }
  return folder;
}

async function writeSingleFile(path: string, files: Files, changes: Changes, hasTokenizer: boolean): Promise<string> {
  if (await exists(path)) return path;
  const scratch = await mkdtemp(join(tmpdir(), 'darkroom-synthetic-'));
  try {
    const plan = await planIn(scratch, changes);
    for (const tokenizer of hasTokenizer ? ['tokenizer', 'tokenizer_2'] : []) {
      await cp(join(scratch, tokenizer), join(dirname(path), tokenizer), { recursive: true });
    }
    await writeHashSafetensors(path, { ...files, hashPrefix: 'a:single.', tensors: originalTensors(plan) });
  } finally {
    await rm(scratch, { recursive: true });
  }
  return path;
}

/** Copies configurations and tokenizers to a folder. @returns the tensors that they ask for */
async function planIn(folder: string, changes: Changes): Promise<ReturnType<typeof planSdxlWeights>> {
  await copyConfigs(folder, changes);
  return planSdxlWeights(await readSdxlConfig(folder));
}

/** Writes the configurations of a model in diffusers' layout, without its weights. */
export function copySdxlConfigs(folder: string, size: SyntheticSize): Promise<void> {
  return copyConfigs(folder, size === 'sdxl-tiny' ? {} : sdxlBase);
}

async function copyConfigs(folder: string, changes: Changes): Promise<void> {
  await cp(await findAsset('tiny-sdxl'), folder, { recursive: true });
  for (const [file, values] of Object.entries(changes)) {
    const path = join(folder, file);
    const config = JSON.parse(await readFile(path, 'utf8')) as object;
    await writeFile(path, JSON.stringify({ ...config, ...values }, null, 2));
  }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
