import { Option } from 'commander';
import type { Config } from '../../config/server-config.js';
import { predictionTypes, type SdxlSource } from '../../pipelines/sdxl/checkpoint/checkpoint.js';

/** What goes with a checkpoint, as the command line says it. */
export interface SourceOptions {
  readonly tokenizer?: string;
  readonly vae?: string;
  readonly textEncoder?: string;
  readonly textEncoder2?: string;
  readonly predictionType?: (typeof predictionTypes)[number];
  readonly ztsnr?: boolean;
}

/** `serve` and `models inspect` take the same ones. */
export function sourceOptions(): readonly Option[] {
  return [
    new Option(
      '--tokenizer <folder>',
      "for a single file: folder with CLIP's vocab.json and merges.txt (SDXL_TOKENIZER)",
    ),
    new Option('--vae <path>', "VAE in place of the checkpoint's, file or folder (SDXL_VAE)"),
    new Option('--text-encoder <path>', "CLIP ViT-L in place of the checkpoint's (SDXL_TEXT_ENCODER)"),
    new Option('--text-encoder-2 <path>', "OpenCLIP ViT-bigG in place of the checkpoint's (SDXL_TEXT_ENCODER_2)"),
    new Option('--prediction-type <name>', 'what the UNet predicts (SDXL_PREDICTION_TYPE)').choices(predictionTypes),
    new Option('--ztsnr', 'trained with zero terminal SNR (SDXL_ZERO_TERMINAL_SNR)'),
    new Option('--no-ztsnr', 'not trained with it, whatever the checkpoint says'),
  ];
}

export function sourceFrom(path: string, { ztsnr, ...options }: SourceOptions): SdxlSource {
  return { path, ...options, zeroTerminalSnr: ztsnr };
}

/** The same as variables of the configuration. */
export function sourceVariables(options: SourceOptions): Partial<Record<keyof Config, string>> {
  const { tokenizer, vae, textEncoder, textEncoder2, predictionType, ztsnr } = options;
  return {
    ...(tokenizer !== undefined && { SDXL_TOKENIZER: tokenizer }),
    ...(vae !== undefined && { SDXL_VAE: vae }),
    ...(textEncoder !== undefined && { SDXL_TEXT_ENCODER: textEncoder }),
    ...(textEncoder2 !== undefined && { SDXL_TEXT_ENCODER_2: textEncoder2 }),
    ...(predictionType !== undefined && { SDXL_PREDICTION_TYPE: predictionType }),
    ...(ztsnr !== undefined && { SDXL_ZERO_TERMINAL_SNR: String(ztsnr) }),
  };
}
