import { z } from 'zod';
import { flag, modelName, path } from '../../std/variable-kinds.js';
import type { FamilyOption } from '../family.js';

/** What the UNet predicts. */
export const predictionTypes = ['epsilon', 'v_prediction'] as const;
export type PredictionType = (typeof predictionTypes)[number];

/** Environment variables of SDXL. */
export const sdxlVariables = {
  SDXL_PATH: path.describe('SDXL checkpoint: a diffusers-layout folder, or a single .safetensors file.'),
  SDXL_TOKENIZER: path.describe(
    "Of a single file: folder with CLIP's vocab.json and merges.txt; unset: beside the file.",
  ),
  SDXL_VAE: path.describe("VAE in place of the checkpoint's: file or diffusers folder."),
  SDXL_TEXT_ENCODER: path.describe("CLIP ViT-L in place of the checkpoint's: file or folder."),
  SDXL_TEXT_ENCODER_2: path.describe("OpenCLIP ViT-bigG in place of the checkpoint's: file or folder."),
  SDXL_PREDICTION_TYPE: z
    .enum(predictionTypes)
    .optional()
    .describe('What the UNet predicts, where the checkpoint is wrong about it.'),
  SDXL_ZERO_TERMINAL_SNR: flag.describe(
    'Whether it was trained with zero terminal SNR, where the checkpoint is wrong about it.',
  ),
  SDXL_NAME: modelName('sdxl'),
} as const;

export type SdxlVariables = z.infer<z.ZodObject<typeof sdxlVariables>>;

/** The same on the command line. */
export const sdxlOptions = {
  SDXL_PATH: { flags: '--sdxl <path>' },
  SDXL_TOKENIZER: { flags: '--tokenizer <folder>' },
  SDXL_VAE: { flags: '--vae <path>' },
  SDXL_TEXT_ENCODER: { flags: '--text-encoder <path>' },
  SDXL_TEXT_ENCODER_2: { flags: '--text-encoder-2 <path>' },
  SDXL_PREDICTION_TYPE: { flags: '--prediction-type <name>' },
  SDXL_ZERO_TERMINAL_SNR: {
    flags: '--ztsnr',
    negative: { flags: '--no-ztsnr', description: 'not trained with it, whatever the checkpoint says' },
  },
} as const satisfies Partial<Record<keyof typeof sdxlVariables, FamilyOption>>;
