import { schedulerNames } from '../../schedulers/index.js';
import type { ModelInfo } from '../pipeline.js';
import { readSdxlConfig, type SdxlConfig } from './config.js';
import { buildSdxlNetworks, type Network, type NetworkName } from './weights.js';

/** What a checkpoint is, found out without loading it. */
export interface SdxlInspection {
  readonly info: ModelInfo;
  readonly networks: Readonly<Record<NetworkName, { parameters: number; files: readonly string[] }>>;
}

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the folder */
export async function inspectSdxl(folder: string): Promise<SdxlInspection> {
  const config = await readSdxlConfig(folder);
  const networks = await buildSdxlNetworks(folder, config, { attention: 'fused' });
  const describe = ({ weights, graph }: Network) => ({ parameters: weights.parameters, files: graph.files });
  const { text_encoder, text_encoder_2, unet, vae } = networks;
  return {
    info: describeSdxl(config, networks),
    networks: {
      text_encoder: describe(text_encoder),
      text_encoder_2: describe(text_encoder_2),
      unet: describe(unet),
      vae: describe(vae),
    },
  };
}

export function describeSdxl(config: SdxlConfig, networks: Readonly<Record<NetworkName, Network>>): ModelInfo {
  const all = Object.values(networks);
  const scheduler = config.scheduler as { prediction_type?: unknown };
  return {
    family: 'sdxl',
    parameters: all.reduce((sum, { weights }) => sum + weights.parameters, 0),
    weightBytes: all.reduce((sum, { weights }) => sum + weights.usedBytes, 0),
    storage: networks.unet.weights.storage,
    predictionType: typeof scheduler.prediction_type === 'string' ? scheduler.prediction_type : 'epsilon',
    schedulers: schedulerNames,
    sizeMultiple: vaeScale(config),
    nativeSize: config.unet.sample_size * vaeScale(config),
  };
}

/** Pixels to a latent, along a side. */
export function vaeScale(config: SdxlConfig): number {
  return 2 ** (config.vae.block_out_channels.length - 1);
}
