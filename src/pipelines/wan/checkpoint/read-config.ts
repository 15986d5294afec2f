import { join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../../../errors.js';
import { readJsonFile } from '../../../std/json-file.js';
import { configFile } from '../../common/component-config.js';
import { readImageEncoderConfig } from '../../common/image-encoder-config.js';
import {
  checkVae,
  type TextEncoderConfig,
  textEncoderSchema,
  transformerSchema,
  type VaeConfig,
  vaeSchema,
  type WanConfig,
} from '../model/config.js';
import { assertVariant, SERVED } from '../model/variant.js';

const FILE = configFile('WAN');

/** A component is the library and the class that it is of; a part that a pipeline goes without is nulls. */
const indexSchema = z.object({ _class_name: z.string(), transformer_2: z.array(z.string().nullable()).nullish() });
const schedulerSchema = z.record(z.string(), z.unknown());

/** `config.json` of the original code, beside its weights: values that do not follow from their shapes. */
const originalSchema = z.object({
  model_type: z.string().optional(),
  num_heads: z.int().min(1).optional(),
  eps: z.number().positive().optional(),
  vace_layers: z.array(z.int().min(0)).min(1).optional(),
});
export type OriginalConfig = z.infer<typeof originalSchema>;

/**
 * Reads the configurations of a diffusers-layout WAN folder.
 * @throws InferenceError CHECKPOINT_INVALID or MODEL_UNSUPPORTED that names the file and each field
 */
export async function readWanConfig(folder: string): Promise<WanConfig> {
  const index = await readJsonFile(join(folder, 'model_index.json'), indexSchema, FILE);
  assertPipeline(index, join(folder, 'model_index.json'));
  const path = join(folder, 'transformer', 'config.json');
  const transformer = await readJsonFile(path, transformerSchema, FILE);
  assertVariant(transformer, path);
  const vae = await readVaeConfig(join(folder, 'vae'));
  return {
    transformer,
    vae,
    textEncoder: await readTextEncoderConfig(join(folder, 'text_encoder')),
    imageEncoder:
      transformer.image_dim == null ? undefined : await readImageEncoderConfig(join(folder, 'image_encoder'), 'WAN'),
    scheduler: await readJsonFile(join(folder, 'scheduler', 'scheduler_config.json'), schedulerSchema, FILE),
  };
}

export async function readVaeConfig(folder: string): Promise<VaeConfig> {
  const path = join(folder, 'config.json');
  return checkVae(await readJsonFile(path, vaeSchema, FILE), path);
}

export function readTextEncoderConfig(folder: string): Promise<TextEncoderConfig> {
  return readJsonFile(join(folder, 'config.json'), textEncoderSchema, FILE);
}

/** The original code's `config.json` in a folder; nothing is known where there is none. */
export function readOriginalConfig(folder: string): Promise<OriginalConfig> {
  return readJsonFile(join(folder, 'config.json'), originalSchema, { ...FILE, fallback: {} });
}

function assertPipeline({ _class_name: name, transformer_2: second }: z.infer<typeof indexSchema>, path: string): void {
  if (!/^Wan.*Pipeline$/.test(name)) {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} describes a ${name}, darkroom needs a WanPipeline`);
  }
  const isServed = ['WanPipeline', 'WanVACEPipeline', 'WanImageToVideoPipeline'].includes(name);
  const isOne = (second ?? []).every((part) => part === null);
  if (isServed && isOne) return;
  throw new InferenceError(
    'MODEL_UNSUPPORTED',
    `${path} describes ${isServed ? 'a WAN 2.2 model (two transformers)' : `a ${name}`}; ${SERVED}`,
  );
}
