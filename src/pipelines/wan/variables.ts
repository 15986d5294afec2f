import type { z } from 'zod';
import { flag, modelName, path } from '../../std/variable-kinds.js';
import type { FamilyOption } from '../family.js';

/** Environment variables of WAN. */
export const wanVariables = {
  WAN_PATH: path.describe('WAN 2.1 checkpoint: a diffusers-layout folder, or one as the original code has it.'),
  WAN_NAME: modelName('wan'),
  WAN_VAE: path.describe("VAE in place of the checkpoint's: file or diffusers folder."),
  WAN_TEXT_ENCODER: path.describe("UMT5 encoder in place of the checkpoint's: file or folder."),
  WAN_IMAGE_ENCODER: path.describe(
    "CLIP's image encoder, of an image-to-video model, in place of the checkpoint's: file or folder.",
  ),
  WAN_TOKENIZER: path.describe(
    "UMT5's tokenizer: folder with tokenizer.json or spiece.model; unset: the checkpoint's.",
  ),
  WAN_TEXT_ENCODER_RESIDENT: flag
    .unwrap()
    .default('false')
    .describe('Whether the text encoder stays loaded between prompts: 23 GB in float32 for the released one.'),
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
