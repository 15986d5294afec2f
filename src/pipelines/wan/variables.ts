import type { z } from 'zod';
import { flag, modelName, path, replicas, samplingPreset } from '../../std/variable-kinds.js';
import { namesOf } from '../common/sampling-preset.js';
import type { FamilyOption } from '../family.js';
import { wanSamplingPresets } from './sampling-presets.js';

/** Environment variables of WAN. */
export const wanVariables = {
  WAN_PATH: path.describe(
    "WAN 2.1 or 2.2 5B checkpoint: a folder in diffusers' layout or in the original code's layout, or the transformer's .safetensors or .gguf file. Unset: no WAN.",
  ),
  WAN_SAMPLING_PRESET: samplingPreset(namesOf(wanSamplingPresets), 'WAN'),
  WAN_NAME: modelName('wan', 'WAN'),
  WAN_REPLICAS: replicas('WAN'),
  WAN_VAE: path.describe("VAE that replaces the WAN checkpoint's: a file or a diffusers folder."),
  WAN_TEXT_ENCODER: path.describe("UMT5 text encoder that replaces the WAN checkpoint's: a file or a folder."),
  WAN_IMAGE_ENCODER: path.describe(
    'CLIP image encoder that replaces the one of an image-to-video checkpoint: a file or a folder.',
  ),
  WAN_TOKENIZER: path.describe(
    "UMT5 tokenizer: a folder with tokenizer.json or spiece.model. Unset: the checkpoint's.",
  ),
  WAN_TEXT_ENCODER_RESIDENT: flag
    .unwrap()
    .default('false')
    .describe(
      "true keeps WAN's text encoder loaded between jobs; the released one takes 23 GB in float32. false loads it for each prompt that is not cached.",
    ),
} as const;

export type WanVariables = z.infer<z.ZodObject<typeof wanVariables>>;

/** The same on the command line. */
export const wanOptions = {
  WAN_PATH: { flags: '--wan <path>' },
  WAN_VAE: { flags: '--wan-vae <path>' },
  WAN_TEXT_ENCODER: { flags: '--wan-text-encoder <path>' },
  WAN_IMAGE_ENCODER: { flags: '--wan-image-encoder <path>' },
  WAN_TOKENIZER: { flags: '--wan-tokenizer <folder>' },
} as const satisfies Partial<Record<keyof typeof wanVariables, FamilyOption>>;
