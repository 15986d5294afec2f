import { join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../../../errors.js';
import { readJsonFile } from '../../../std/json-file.js';
import { configFile } from '../../common/component-config.js';
import {
  type SdxlConfig,
  spellOutUNet,
  type TextEncoderConfig,
  textEncoderSchema,
  type UNetConfig,
  unetSchema,
  type VaeConfig,
  vaeSchema,
} from '../model/config.js';

const FILE = configFile('SDXL');

const indexSchema = z.object({
  _class_name: z.string(),
  // Absent in the file means true: StableDiffusionXLPipeline's own default.
  force_zeros_for_empty_prompt: z.boolean().default(true),
});

const schedulerSchema = z.record(z.string(), z.unknown());

/**
 * Fields of a UNet's configuration that distilled models have: blocks of other depths on the way up, no middle.
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/models/unets/unet_2d_condition.py#L121
 */
const distilledSchema = z.object({
  mid_block_type: z.string().nullable().default('UNetMidBlock2DCrossAttn'),
  reverse_transformer_layers_per_block: z.unknown(),
});

/** @throws InferenceError MODEL_UNSUPPORTED. @param path what messages name */
export function refuseDistilled(path: string): never {
  throw new InferenceError(
    'MODEL_UNSUPPORTED',
    `${path} has a UNet without attention in its middle or with blocks of other depths: a distilled SDXL such as SSD-1B, Segmind Vega or KOALA; darkroom serves the whole UNet`,
  );
}

/**
 * Reads the configurations of a diffusers-layout SDXL folder.
 * @throws InferenceError CHECKPOINT_INVALID that names the file and each field
 */
export async function readSdxlConfig(folder: string): Promise<SdxlConfig> {
  const index = await readJsonFile(join(folder, 'model_index.json'), indexSchema, FILE);
  if (!/^StableDiffusionXL.*Pipeline$/.test(index._class_name)) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${join(folder, 'model_index.json')} describes a ${index._class_name}, darkroom needs a StableDiffusionXLPipeline`,
    );
  }
  return {
    forceZerosForEmptyPrompt: index.force_zeros_for_empty_prompt,
    unet: await readUNetConfig(join(folder, 'unet')),
    vae: await readVaeConfig(join(folder, 'vae')),
    textEncoder: await readTextEncoderConfig(join(folder, 'text_encoder')),
    textEncoder2: await readTextEncoderConfig(join(folder, 'text_encoder_2')),
    scheduler: await readJsonFile(join(folder, 'scheduler', 'scheduler_config.json'), schedulerSchema, FILE),
  };
}

export async function readUNetConfig(folder: string): Promise<UNetConfig> {
  const path = join(folder, 'config.json');
  const distilled = await readJsonFile(path, distilledSchema, FILE);
  const { mid_block_type: middle, reverse_transformer_layers_per_block: reversed } = distilled;
  if (middle !== 'UNetMidBlock2DCrossAttn' || reversed != null) refuseDistilled(folder);
  return spellOutUNet(await readJsonFile(path, unetSchema, FILE), path);
}

export function readVaeConfig(folder: string): Promise<VaeConfig> {
  return readJsonFile(join(folder, 'config.json'), vaeSchema, FILE);
}

export function readTextEncoderConfig(folder: string): Promise<TextEncoderConfig> {
  return readJsonFile(join(folder, 'config.json'), textEncoderSchema, FILE);
}
