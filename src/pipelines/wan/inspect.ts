import { defaultDialect } from '../../graph/dialect.js';
import type { Weights } from '../../graph/weights.js';
import { flowSchedulerNames } from '../../schedulers/flow-schedulers.js';
import type { ModelInfo } from '../pipeline.js';
import { openWanCheckpoint, type WanCheckpoint, type WanSource } from './checkpoint/checkpoint.js';
import type { ComponentName } from './checkpoint/checkpoint-parts.js';
import { buildImageEncoder } from './conditioning/image-encoder.js';
import { frameConditioningOf, variantOf, type WanVariant } from './model/variant.js';
import { buildPromptEncoder } from './prompt/prompt-encoder.js';
import { buildWanNetworks, type Networks } from './weights.js';

/** What a checkpoint is, found out without loading it. */
export interface WanInspection {
  readonly layout: WanCheckpoint['layout'];
  readonly variant: WanVariant;
  readonly info: ModelInfo;
  /** `image_encoder` of models that look at pictures. */
  readonly networks: Readonly<Partial<Record<ComponentName, { parameters: number; files: readonly string[] }>>>;
}

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the checkpoint */
export async function inspectWan(source: WanSource): Promise<WanInspection> {
  const checkpoint = await openWanCheckpoint(source);
  const networks = await buildWanNetworks(checkpoint, defaultDialect);
  const textEncoder = await buildPromptEncoder(checkpoint, defaultDialect);
  const imageEncoder = await buildImageEncoder(checkpoint, defaultDialect);
  const describe = (all: readonly Weights[]) => ({
    parameters: all.reduce((sum, { parameters }) => sum + parameters, 0),
    files: [...new Set(all.flatMap(({ graph }) => graph.files))],
  });
  return {
    layout: checkpoint.layout,
    variant: variantOf(checkpoint.config.transformer),
    info: describeWan(checkpoint, networks, { textEncoder, imageEncoder }),
    networks: {
      transformer: describe([networks.transformer.weights]),
      vae: describe(vaeWeights(networks)),
      text_encoder: describe([textEncoder]),
      ...(imageEncoder && { image_encoder: describe([imageEncoder]) }),
    },
  };
}

interface Encoders {
  readonly textEncoder: Weights;
  readonly imageEncoder: Weights | undefined;
}

export function describeWan(
  { config }: WanCheckpoint,
  networks: Networks,
  { textEncoder, imageEncoder }: Encoders,
): ModelInfo {
  const encoders = [textEncoder, ...(imageEncoder ? [imageEncoder] : [])];
  const all = [networks.transformer.weights, ...vaeWeights(networks), ...encoders];
  return {
    family: 'wan',
    parameters: all.reduce((sum, { parameters }) => sum + parameters, 0),
    weightBytes: all.reduce((sum, { usedBytes }) => sum + usedBytes, 0),
    storage: networks.transformer.weights.storage,
    predictionType: 'flow',
    schedulers: flowSchedulerNames,
    // Eight pixels to a latent, two latents to a patch.
    sizeMultiple: 16,
    // What it was trained at: 480p, wide.
    nativeWidth: 832,
    nativeHeight: 480,
    unused: all.flatMap(({ spare, files }) => spare.map((key) => files.tensors.get(key)?.name ?? key)),
    frames: frameConditioningOf(config.transformer),
  };
}

/** Each half of the VAE once: the graphs of first and later chunks have the same weights. */
function vaeWeights({ vae_decoder_later, vae_encoder_later }: Networks): readonly Weights[] {
  return [vae_decoder_later.weights, vae_encoder_later.weights];
}
