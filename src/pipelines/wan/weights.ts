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
import { buildImageTower, imagePositions, unusedImageTowerKeys } from '../common/image-tower.js';
import { mostPixelsOn } from '../frame-parts.js';
import type { RunSize } from '../model-memory.js';
import type { WanCheckpoint } from './checkpoint/checkpoint.js';
import { type ComponentName, componentNames } from './checkpoint/checkpoint-parts.js';
import type { WanConfig } from './model/config.js';
import { buildTextEncoder, textEncoderAliases, unusedTextEncoderKeys } from './model/text-encoder.js';
import {
  buildReusingTransformer,
  buildTimeEmbedder,
  buildTransformer,
  PATCH,
  TEXT_POSITIONS,
} from './model/transformer.js';
import {
  buildVaeDecoder,
  buildVaeEncoder,
  type ChunkKind,
  framesPerLatent,
  pixelsPerLatent,
  unusedVaeKeys,
} from './model/vae.js';
import { variantOf } from './model/variant.js';
import { decoderParts, emptyWindow, partWindow, wholeWindow } from './windows.js';

/** The networks of a WAN, by name. */
export type WanGraphs = NetworksOf<ReturnType<typeof wanTable>>;

/** Steps of a long schedule, whose times are embedded together. */
const STEPS = 50;

/** The whole graph of the transformer reports what is spare in its file. */
const REPORTED_BY_WHOLE_GRAPH = [/^/];

/**
 * The transformer has two small graphs beside the whole one, for steps that leave its blocks out; both are float32, as is what they
 * share with the whole one. The VAE has a graph for a video's first frame and one for all later chunks, each way.
 *
 * @param cardBytes memory of CUDA's card. Omitted: not known, or another device
 */
export function wanTable(config: WanConfig, cardBytes?: number) {
  const { imageEncoder } = config;
  const halves: readonly HalfType[] = ['f16', 'bf16'];
  const isOfText = ['text_to_video', 'text_image_to_video'].includes(variantOf(config.transformer));
  const side = pixelsPerLatent(config.vae);
  const parts = decoderParts(config.vae, mostPixelsOn(cardBytes));
  const latents = ({ width, height }: RunSize) => ({ width: width / side, height: height / side });
  const video = ({ width, height, frames, rows }: RunSize) => ({
    B: rows,
    T: TEXT_POSITIONS,
    F: (config.transformer.add_ref_conv ? 2 : 1) + (frames - 1) / framesPerLatent(config.vae),
    h: height / side / PATCH,
    w: width / side / PATCH,
    I: imageEncoder === undefined ? 0 : imagePositions(imageEncoder),
  });
  const decoder = (kind: ChunkKind) =>
    ({
      component: 'vae',
      residence: 'always',
      sizes: (run) => wholeWindow(latents(run), config.vae).sizes,
      parts: {
        ...parts,
        sizes: (run, isShort) => partWindow(latents(run), config.vae, parts, isShort),
        nothing: (run) => emptyWindow(latents(run), config.vae),
      },
      halves,
      options: { unused: unusedVaeKeys('decoder', kind) },
      build: ({ graph, root }) => buildVaeDecoder(graph, root, config.vae, kind),
    }) as const satisfies NetworkBuilder;
  const encoder = (kind: ChunkKind) =>
    ({
      component: 'vae',
      // Models that are conditioned on a whole video encode one, known or blank, for every job.
      residence: isOfText ? 'reference' : 'always',
      sizes: ({ width, height }) => ({ H: height / side, W: width / side }),
      halves,
      options: { unused: unusedVaeKeys('encoder', kind) },
      build: ({ graph, root }) => buildVaeEncoder(graph, root, config.vae, kind),
    }) as const satisfies NetworkBuilder;
  return {
    transformer: {
      component: 'transformer',
      residence: 'always',
      sizes: video,
      halves,
      // The first converters of image-to-video models stored this norm; no code reads it.
      options: { unused: [/\.attn2\.norm_added_q\.weight$/] },
      quantises: /^blocks\.\d+\.(attn[12]|ffn)\./,
      build: ({ graph, root }) => buildTransformer(graph, root, config.transformer),
    },
    transformer_reusing: {
      component: 'transformer',
      residence: 'reuse',
      sizes: video,
      options: { unused: REPORTED_BY_WHOLE_GRAPH },
      build: ({ graph, root }) => buildReusingTransformer(graph, root, config.transformer),
    },
    transformer_time: {
      component: 'transformer',
      residence: 'reuse',
      // A row for each step of a schedule.
      sizes: () => ({ S: STEPS }),
      options: { unused: REPORTED_BY_WHOLE_GRAPH },
      build: ({ graph, root }) => buildTimeEmbedder(graph, root, config.transformer),
    },
    vae_decoder_first: decoder('first'),
    vae_decoder_later: decoder('later'),
    vae_encoder_first: encoder('first'),
    vae_encoder_later: encoder('later'),
    text_encoder: {
      component: 'text_encoder',
      residence: 'encode',
      sizes: () => ({ T: TEXT_POSITIONS }),
      // T5's feed-forward outgrows float16.
      halves: ['bf16'],
      options: { aliases: textEncoderAliases, unused: unusedTextEncoderKeys },
      build: ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder),
    },
    image_encoder: imageEncoder && {
      component: 'image_encoder',
      residence: 'encode',
      sizes: () => ({}),
      halves,
      options: { unused: unusedImageTowerKeys(imageEncoder) },
      build: ({ graph, root }) => buildImageTower(graph, root, imageEncoder),
    },
  } as const satisfies Record<string, NetworkBuilder<ComponentName> | undefined>;
}

/** Names and shapes of all tensors that a configuration asks for, in the names of diffusers. */
export function planWanWeights(config: WanConfig): Readonly<Record<ComponentName, WeightPlan>> {
  return planWeights(componentNames, wanTable(config));
}

/**
 * Builds the graphs over a checkpoint. Reads headers only, no weights.
 * @throws InferenceError CHECKPOINT_INVALID that lists the problems of all networks together
 */
export function buildWanNetworks(
  checkpoint: WanCheckpoint,
  dialectsOf: Backend['dialectsOf'],
  { cardBytes, ...changes }: WeightChanges & { readonly cardBytes?: number | undefined } = {},
): Promise<WanGraphs> {
  const table = wanTable(checkpoint.config, cardBytes);
  return buildNetworks(checkpoint, { model: 'WAN', table, dialectsOf, ...changes });
}
