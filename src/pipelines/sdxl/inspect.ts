import { defaultDialect } from '../../graph/dialect.js';
import { predictionOf, schedulerNames } from '../../schedulers/beta-schedulers.js';
import type { ModelInfo } from '../pipeline.js';
import { openSdxlCheckpoint, type SdxlCheckpoint, type SdxlSource } from './checkpoint/checkpoint.js';
import type { SdxlConfig } from './model/config.js';
import { buildSdxlNetworks, type Network, type NetworkName, type Networks, networkNames } from './weights.js';

/** What a checkpoint is, found out without loading it. */
export interface SdxlInspection {
  readonly layout: SdxlCheckpoint['layout'];
  readonly info: ModelInfo;
  readonly networks: Readonly<Record<NetworkName, { parameters: number; files: readonly string[] }>>;
}

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the checkpoint */
export async function inspectSdxl(source: SdxlSource): Promise<SdxlInspection> {
  const checkpoint = await openSdxlCheckpoint(source);
  const networks = await buildSdxlNetworks(checkpoint, defaultDialect);
  const describe = ({ weights, graph }: Network) => ({ parameters: weights.parameters, files: graph.files });
  const { text_encoder, text_encoder_2, unet, vae_decoder, vae_encoder } = networks;
  return {
    layout: checkpoint.layout,
    info: describeSdxl(checkpoint, networks),
    networks: {
      text_encoder: describe(text_encoder),
      text_encoder_2: describe(text_encoder_2),
      unet: describe(unet),
      vae_decoder: describe(vae_decoder),
      vae_encoder: describe(vae_encoder),
    },
  };
}

/** As the file calls them. */
function spareNames({ spare, files }: Network['weights']): readonly string[] {
  return spare.map((key) => files.tensors.get(key)?.name ?? key);
}

export function describeSdxl({ config, foreign }: SdxlCheckpoint, networks: Networks): ModelInfo {
  const all = Object.values(networks);
  return {
    family: 'sdxl',
    parameters: all.reduce((sum, { weights }) => sum + weights.parameters, 0),
    weightBytes: all.reduce((sum, { weights }) => sum + weights.usedBytes, 0),
    storage: networks.unet.weights.storage,
    predictionType: predictionOf(config.scheduler),
    schedulers: schedulerNames,
    sizeMultiple: vaeScale(config),
    nativeWidth: config.unet.sample_size * vaeScale(config),
    nativeHeight: config.unet.sample_size * vaeScale(config),
    // Those of no network, then those that their network does not know.
    unused: [...foreign, ...networkNames.flatMap((name) => spareNames(networks[name].weights))],
  };
}

/** Pixels to a latent, along a side. */
export function vaeScale(config: SdxlConfig): number {
  return 2 ** (config.vae.block_out_channels.length - 1);
}
