import { defaultDialect } from '../../graph/dialect.js';
import { maxSteps, predictionOf, schedulerNames } from '../../schedulers/beta-schedulers.js';
import type { Network } from '../common/build-networks.js';
import type { ModelInfo } from '../pipeline.js';
import { openSdxlCheckpoint, type SdxlCheckpoint, type SdxlSource } from './checkpoint/checkpoint.js';
import { vaeScale } from './model/vae.js';
import { buildSdxlNetworks, type NetworkName, type SdxlGraphs } from './weights.js';

/** The result of an inspection: facts about a checkpoint that are found without loading it. */
export interface SdxlInspection {
  readonly title: string;
  readonly layout: SdxlCheckpoint['layout'];
  readonly info: ModelInfo;
  readonly networks: Readonly<
    Record<Exclude<NetworkName, 'unet_shallow'>, { parameters: number; files: readonly string[] }>
  >;
}

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the checkpoint */
export async function inspectSdxl(source: SdxlSource): Promise<SdxlInspection> {
  const checkpoint = await openSdxlCheckpoint(source);
  const networks = await buildSdxlNetworks(checkpoint, () => [defaultDialect]);
  await checkpoint.readTokenizers();
  const describe = ({ weights }: Network) => ({ parameters: weights.parameters, files: weights.sources });
  const entries = Object.entries(ownNetworks(networks)).flatMap(([name, network]) =>
    network === undefined ? [] : [[name, describe(network)]],
  );
  const { unet, vae } = checkpoint.config;
  return {
    title: unet.in_channels === vae.latent_channels ? 'SDXL' : 'SDXL inpainting',
    layout: checkpoint.layout,
    info: describeSdxl(checkpoint, networks),
    networks: Object.fromEntries(entries) as SdxlInspection['networks'],
  };
}

/** Names of the tensors that no graph takes, as the file calls them. */
function spareNames({ spare, files }: Network['weights']): readonly string[] {
  return spare.map((key) => files.tensors.get(key)?.name ?? key);
}

/** Networks with weights of their own: the shallow UNet has those of the whole one. */
function ownNetworks({ unet_shallow: _, ...own }: SdxlGraphs): Omit<SdxlGraphs, 'unet_shallow'> {
  return own;
}

export function describeSdxl({ config, foreign }: SdxlCheckpoint, networks: SdxlGraphs): ModelInfo {
  const all = Object.values(ownNetworks(networks)).filter((network) => network !== undefined);
  return {
    family: 'sdxl',
    parameters: all.reduce((sum, { weights }) => sum + weights.parameters, 0),
    weightBytes: all.reduce((sum, { weights }) => sum + weights.usedBytes, 0),
    storage: networks.unet.weights.storage,
    predictionType: predictionOf(config.scheduler),
    schedulers: schedulerNames,
    maxSteps: maxSteps(config.scheduler),
    sizeMultiple: vaeScale(config.vae),
    nativeWidth: config.unet.sample_size * vaeScale(config.vae),
    nativeHeight: config.unet.sample_size * vaeScale(config.vae),
    ...(config.imagePrompt && { takesImagePrompts: true }),
    // Keys of no network, then keys that their network does not know.
    unused: [...foreign, ...all.flatMap(({ weights }) => spareNames(weights))],
  };
}
