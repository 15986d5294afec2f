import type { HalfType } from '../../graph/dialect.js';
import type { Backend } from '../../runtime/backend.js';
import {
  buildNetworks,
  type NetworkBuilder,
  type NetworksOf,
  planWeights,
  type WeightChanges,
  type WeightPlan,
} from '../common/build-networks.js';
import {
  buildImageEmbedding,
  buildImageTower,
  unusedImageEmbeddingKeys,
  unusedImageTowerKeys,
} from '../common/image-tower.js';
import type { RunSize } from '../model-memory.js';
import {
  type ComponentName,
  componentNames,
  type ImagePromptName,
  imagePromptNames,
  type SdxlCheckpoint,
} from './checkpoint/checkpoint.js';
import type { SdxlConfig } from './model/config.js';
import { buildImageProjection } from './model/ip-adapter.js';
import { buildTextEncoder, unusedTextEncoderKeys } from './model/text-encoder.js';
import { buildShallowUNet, buildUNet, noResidualSizes } from './model/unet.js';
import {
  buildVaeDecoder,
  buildVaeEncoder,
  unusedVaeDecoderKeys,
  unusedVaeEncoderKeys,
  vaeAliases,
  vaeScale,
} from './model/vae.js';

/** The networks of an SDXL, by name. */
export type SdxlGraphs = NetworksOf<ReturnType<typeof sdxlTable>>;
export type NetworkName = keyof SdxlGraphs;

function sdxlTable(config: SdxlConfig) {
  const scale = vaeScale(config.vae);
  const { imagePrompt } = config;
  const image = ({ width, height }: RunSize) => ({ H: height / scale, W: width / scale });
  // A prompt of one chunk.
  const denoised = (run: RunSize) => ({
    B: run.rows,
    T: config.textEncoder.max_position_embeddings,
    ...image(run),
    ...noResidualSizes(config.unet),
  });
  // A prompt's row, and that of its pooled vector; no embeddings.
  const text = { residence: 'always', sizes: () => ({ B: 2, N: 1 }) } as const;
  const halves: readonly HalfType[] = ['f16', 'bf16'];
  // The released VAE outgrows float16 in its middle block; one that was trained not to says so in its configuration.
  const vaeHalves = config.vae.force_upcast ? [] : halves;
  return {
    text_encoder: {
      component: 'text_encoder',
      ...text,
      halves,
      options: { unused: unusedTextEncoderKeys(config.textEncoder, false) },
      build: ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder, false),
    },
    text_encoder_2: {
      component: 'text_encoder_2',
      ...text,
      halves,
      options: { unused: unusedTextEncoderKeys(config.textEncoder2, true) },
      build: ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder2, true),
    },
    unet: {
      component: 'unet',
      residence: 'always',
      sizes: denoised,
      halves,
      quantises: /\.transformer_blocks\.\d+\.(attn[12]|ff)\./,
      build: ({ graph, root }) => buildUNet(graph, root, config.unet, imagePrompt?.projection),
    },
    unet_shallow: {
      component: 'unet',
      residence: 'reuse',
      sizes: denoised,
      halves,
      // The whole UNet reports them.
      options: { unused: [/^/] },
      build: ({ graph, root }) => buildShallowUNet(graph, root, config.unet, imagePrompt?.projection),
    },
    vae_decoder: {
      component: 'vae',
      residence: 'always',
      // One image at a time.
      sizes: (run) => ({ B: 1, ...image(run) }),
      halves: vaeHalves,
      options: { aliases: vaeAliases, unused: unusedVaeDecoderKeys },
      build: ({ graph, root }) => buildVaeDecoder(graph, root, config.vae),
    },
    vae_encoder: {
      component: 'vae',
      // An inpainting UNet takes latents of what is kept, or of nothing, in every job.
      residence: config.unet.in_channels === config.vae.latent_channels ? 'reference' : 'always',
      sizes: ({ width, height }) => ({ B: 1, H: height, W: width }),
      halves: vaeHalves,
      options: { aliases: vaeAliases, unused: unusedVaeEncoderKeys },
      build: ({ graph, root }) => buildVaeEncoder(graph, root, config.vae),
    },
    image_encoder: imagePrompt && {
      component: 'image_encoder',
      residence: 'reference',
      sizes: () => ({}),
      halves,
      options: {
        unused:
          imagePrompt.projection.kind === 'plus'
            ? [...unusedImageTowerKeys(imagePrompt.encoder), /^visual_projection\./]
            : unusedImageEmbeddingKeys,
      },
      build: ({ graph, root }) =>
        imagePrompt.projection.kind === 'plus'
          ? buildImageTower(graph, root, imagePrompt.encoder)
          : buildImageEmbedding(graph, root, imagePrompt.encoder),
    },
    image_projection: imagePrompt && {
      component: 'image_projection',
      residence: 'reference',
      sizes: () => ({}),
      halves,
      build: ({ graph, root }) => buildImageProjection(graph, root, imagePrompt, config.unet),
    },
  } as const satisfies Record<string, NetworkBuilder<ComponentName | ImagePromptName> | undefined>;
}

/** Names and shapes of all tensors that a checkpoint of a configuration has, in the names of diffusers. */
export function planSdxlWeights(config: SdxlConfig): Readonly<Record<ComponentName | ImagePromptName, WeightPlan>> {
  const table = sdxlTable(config);
  // Files also hold the last layer of the first encoder, which no image needs. They have no projection of it.
  const build: NetworkBuilder['build'] = ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder, true);
  const plan = planWeights([...componentNames, ...imagePromptNames], {
    ...table,
    text_encoder: { ...table.text_encoder, build },
  });
  return { ...plan, text_encoder: plan.text_encoder.filter(([name]) => name !== 'text_projection.weight') };
}

/**
 * Builds the graphs over a checkpoint. Reads headers only, no weights.
 * @throws InferenceError CHECKPOINT_INVALID that lists the problems of all networks together
 */
export function buildSdxlNetworks(
  checkpoint: SdxlCheckpoint,
  dialectsOf: Backend['dialectsOf'],
  changes?: WeightChanges,
): Promise<SdxlGraphs> {
  return buildNetworks(checkpoint, { model: 'SDXL', table: sdxlTable(checkpoint.config), dialectsOf, ...changes });
}
