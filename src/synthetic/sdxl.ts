import { cp, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FloatType } from '../graph/safetensors.js';
import { readSdxlConfig } from '../pipelines/sdxl/config.js';
import { type NetworkName, networkNames, planSdxlWeights } from '../pipelines/sdxl/weights.js';
import { writeHashSafetensors } from './write-safetensors.js';

const FILES: Readonly<Record<NetworkName, string>> = {
  text_encoder: 'model.safetensors',
  text_encoder_2: 'model.safetensors',
  unet: 'diffusion_pytorch_model.safetensors',
  vae: 'diffusion_pytorch_model.safetensors',
};

/**
 * Makes a tiny SDXL in diffusers layout: the real architecture, file layout and names, 8.5 million hash weights (its pictures
 * are noise). Does nothing where one is already whole.
 *
 * @returns the folder
 */
export function writeTinySdxl(folder: string, dtype: FloatType = 'F16'): Promise<string> {
  return writeSyntheticSdxl(folder, dtype, {});
}

/** The same at the size of the released SDXL base: 3.4 billion hash weights, 6.9 GB in F16. For measuring. */
export function writeFullSizeSdxl(folder: string): Promise<string> {
  return writeSyntheticSdxl(folder, 'F16', sdxlBase);
}

/** What makes the released model larger than the tiny one. https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0 */
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

async function writeSyntheticSdxl(
  folder: string,
  dtype: FloatType,
  changes: Readonly<Record<string, object>>,
): Promise<string> {
  const last = join(folder, 'vae', FILES.vae);
  if (await stat(last).catch(() => undefined)) return folder;
  await mkdir(folder, { recursive: true });
  await cp(await findAssets(), folder, { recursive: true });
  for (const [file, values] of Object.entries(changes)) {
    const path = join(folder, file);
    const config = JSON.parse(await readFile(path, 'utf8')) as object;
    await writeFile(path, JSON.stringify({ ...config, ...values }, null, 2));
  }
  const plan = planSdxlWeights(await readSdxlConfig(folder));
  for (const name of networkNames) {
    const hashPrefix = `a:${name}.`;
    await writeHashSafetensors(join(folder, name, FILES[name]), { dtype, hashPrefix, tensors: plan[name] });
  }
  return folder;
}

/** `assets/tiny-sdxl` of the package: above this file as source, and one level more as build. */
async function findAssets(): Promise<string> {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (folder !== dirname(folder)) {
    const assets = join(folder, 'assets', 'tiny-sdxl');
    if (await stat(assets).catch(() => undefined)) return assets;
    folder = dirname(folder);
  }
  throw new Error('assets/tiny-sdxl is missing from this installation');
}
