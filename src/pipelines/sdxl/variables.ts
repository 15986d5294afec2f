import { z } from 'zod';
import { flag, modelName, path, replicas, samplingPreset } from '../../std/variable-kinds.js';
import { namesOf } from '../common/sampling-preset.js';
import type { FamilyOption } from '../family.js';
import { sdxlSamplingPresets } from './sampling-presets.js';

/** Prediction types of the UNet. */
const predictionTypes = ['epsilon', 'v_prediction', 'sample'] as const;
export type PredictionType = (typeof predictionTypes)[number];

/** Environment variables of SDXL. */
export const sdxlVariables = {
  SDXL_PATH: path.describe(
    "SDXL checkpoint: a folder in diffusers' layout, or a single .safetensors file. Unset: no SDXL.",
  ),
  SDXL_TOKENIZER: path.describe(
    "Tokenizer for a single-file SDXL checkpoint: a folder with CLIP's vocab.json and merges.txt. Unset: the folder tokenizer beside the file, else CLIP's published vocabulary.",
  ),
  SDXL_UNET: path.describe(
    "UNet that replaces the SDXL checkpoint's, such as one that was distilled for few steps: a file or a diffusers folder.",
  ),
  SDXL_VAE: path.describe("VAE that replaces the SDXL checkpoint's: a file or a diffusers folder."),
  SDXL_TEXT_ENCODER: path.describe("CLIP ViT-L text encoder that replaces the SDXL checkpoint's: a file or a folder."),
  SDXL_TEXT_ENCODER_2: path.describe(
    "OpenCLIP ViT-bigG text encoder that replaces the SDXL checkpoint's: a file or a folder.",
  ),
  SDXL_IP_ADAPTER: path.describe(
    'IP-Adapter for references of the types style and character: a .safetensors file. Needs SDXL_IP_ADAPTER_ENCODER. Unset: such references are the image to start from.',
  ),
  SDXL_IP_ADAPTER_ENCODER: path.describe(
    'Image encoder of the IP-Adapter, CLIP ViT-H or ViT-bigG: a .safetensors file, or a folder as transformers saves it.',
  ),
  SDXL_PREDICTION_TYPE: z
    .enum(predictionTypes)
    .optional()
    .describe("Prediction type of the UNet, if the checkpoint states a wrong one. Unset: the checkpoint's."),
  SDXL_ZERO_TERMINAL_SNR: flag.describe(
    'Set it to true or false if the checkpoint is wrong about its training with zero terminal SNR. Unset: what the checkpoint says.',
  ),
  SDXL_SAMPLING_PRESET: samplingPreset(namesOf(sdxlSamplingPresets), 'SDXL'),
  SDXL_NAME: modelName('sdxl', 'SDXL'),
  SDXL_REPLICAS: replicas('SDXL'),
} as const;

export type SdxlVariables = z.infer<z.ZodObject<typeof sdxlVariables>>;

/** The same on the command line. */
export const sdxlOptions = {
  SDXL_PATH: { flags: '--sdxl <path>' },
  SDXL_TOKENIZER: { flags: '--tokenizer <folder>' },
  SDXL_UNET: { flags: '--unet <path>' },
  SDXL_VAE: { flags: '--vae <path>' },
  SDXL_TEXT_ENCODER: { flags: '--text-encoder <path>' },
  SDXL_TEXT_ENCODER_2: { flags: '--text-encoder-2 <path>' },
  SDXL_IP_ADAPTER: { flags: '--ip-adapter <file>' },
  SDXL_IP_ADAPTER_ENCODER: { flags: '--ip-adapter-encoder <path>' },
  SDXL_PREDICTION_TYPE: { flags: '--prediction-type <name>' },
  SDXL_ZERO_TERMINAL_SNR: {
    flags: '--ztsnr',
    description: 'trained with zero terminal SNR, whatever the checkpoint says',
    negative: { flags: '--no-ztsnr', description: 'not trained with it, whatever the checkpoint says' },
  },
} as const satisfies Partial<Record<keyof typeof sdxlVariables, FamilyOption>>;
