/** The files of a checkpoint's parts, in any layout: tensors under diffusers' names, and the configuration. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { InferenceError } from '../../../errors.js';
import type { GgufWeightsOptions } from '../../../weights/gguf/gguf-weights.js';
import { readWeightFile } from '../../../weights/weight-file.js';
import { readWeightFiles, type WeightFiles } from '../../../weights/weight-files.js';
import {
  type ImageEncoderConfig,
  imageEncoderConfigFromShapes,
  readImageEncoderConfig,
  withoutTower,
} from '../../common/image-encoder-config.js';
import { type FamilyOption, flagOf } from '../../family.js';
import type { TextEncoderConfig, VaeConfig } from '../model/config.js';
import { textEncoderConfigFromShapes, vaeConfigFromShapes } from './config-from-shapes.js';
import { translateImageEncoder, translateTextEncoder, translateVae } from './original-layout.js';
import { readTextEncoderConfig, readVaeConfig } from './read-config.js';

/** The parts that a checkpoint is made of, as its folders are called. An image encoder is of models that take images. */
export const componentNames = ['transformer', 'vae', 'text_encoder', 'image_encoder'] as const;
export type ComponentName = (typeof componentNames)[number];

/** Names of the parts' files in diffusers' folders, without `.safetensors`. */
export const STEMS: Readonly<Record<ComponentName, readonly string[]>> = {
  transformer: ['diffusion_pytorch_model'],
  vae: ['diffusion_pytorch_model'],
  text_encoder: ['model'],
  image_encoder: ['model'],
};

/** Names of the files beside the original transformer: those of the original code, and those of repackagers. */
const BESIDE: Readonly<Record<Exclude<ComponentName, 'transformer'> | 'vae_2_2', readonly string[]>> = {
  vae: ['Wan2.1_VAE.pth', 'Wan2.1_VAE.safetensors', 'wan_2.1_vae.safetensors'],
  vae_2_2: ['Wan2.2_VAE.pth', 'Wan2.2_VAE.safetensors', 'wan2.2_vae.safetensors'],
  text_encoder: [
    'models_t5_umt5-xxl-enc-bf16.pth',
    'models_t5_umt5-xxl-enc-bf16.safetensors',
    'umt5-xxl-enc-bf16.safetensors',
    'umt5_xxl_fp16.safetensors',
    'umt5_xxl_fp8_e4m3fn_scaled.safetensors',
  ],
  image_encoder: [
    'models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth',
    'models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors',
    'clip_vision_h.safetensors',
  ],
};

/** One part of a checkpoint. */
export interface Part<Config> {
  readonly files: WeightFiles;
  readonly config: Config;
}

/** @param options of GGUF files */
export async function readVae(path: string, options: GgufWeightsOptions): Promise<Part<VaeConfig>> {
  if (await isFolder(path)) return { files: await readWeightFiles(path, STEMS.vae), config: await readVaeConfig(path) };
  const files = await readWeightFile(path, options);
  const isOurs = files.tensors.has('encoder.conv_in.weight');
  const ours = isOurs ? files : { ...files, tensors: translateVae(files.tensors) };
  return { files: ours, config: vaeConfigFromShapes(ours) };
}

/** @param options of GGUF files */
export async function readTextEncoder(path: string, options: GgufWeightsOptions): Promise<Part<TextEncoderConfig>> {
  if (await isFolder(path)) {
    return { files: await readWeightFiles(path, STEMS.text_encoder), config: await readTextEncoderConfig(path) };
  }
  const files = await readWeightFile(path, options);
  const isOurs = files.tensors.has('shared.weight');
  const ours = isOurs ? files : { ...files, tensors: translateTextEncoder(files.tensors) };
  return { files: ours, config: textEncoderConfigFromShapes(ours) };
}

/** @param options of GGUF files */
export async function readImageEncoder(path: string, options: GgufWeightsOptions): Promise<Part<ImageEncoderConfig>> {
  if (await isFolder(path)) {
    const files = withoutTower(await readWeightFiles(path, STEMS.image_encoder));
    return { files, config: await readImageEncoderConfig(path, 'WAN') };
  }
  const files = withoutTower(await readWeightFile(path, options));
  const isOurs = files.tensors.has('embeddings.class_embedding');
  const ours = isOurs ? files : { ...files, tensors: translateImageEncoder(files.tensors) };
  return { files: ours, config: imageEncoderConfigFromShapes(ours) };
}

/** @throws InferenceError CHECKPOINT_INVALID that names the option which gives the file */
export async function beside(folder: string, name: keyof typeof BESIDE, option: FamilyOption): Promise<string> {
  for (const file of BESIDE[name]) if (await exists(join(folder, file))) return join(folder, file);
  throw new InferenceError(
    'CHECKPOINT_INVALID',
    `${folder} has no ${BESIDE[name][0]} (or ${BESIDE[name].slice(1).join(', ')}); give one with ${flagOf(option)} FILE`,
  );
}

export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

export async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}
