import { defaultDialect } from '../../graph/dialect.js';
import type { Weights } from '../../graph/weights.js';
import { flowSchedulerNames } from '../../schedulers/flow-schedulers.js';
import type { ModelInfo } from '../pipeline.js';
import { openWanCheckpoint, type WanCheckpoint, type WanSource } from './checkpoint/checkpoint.js';
import type { ComponentName } from './checkpoint/checkpoint-parts.js';
import { PATCH } from './model/transformer.js';
import { pixelsPerLatent } from './model/vae.js';
import { frameConditioningOf, variantOf, type WanVariant } from './model/variant.js';
import { openTokenizer } from './prompt/prompt-encoder.js';
import { trainedVideo } from './trained-video.js';
import { buildWanNetworks, type WanGraphs } from './weights.js';

/** The result of an inspection: facts about a checkpoint that are found without loading it. */
export interface WanInspection {
  readonly layout: WanCheckpoint['layout'];
  readonly variant: WanVariant;
  readonly info: ModelInfo;
  /** `image_encoder` of models that take images. */
  readonly networks: Readonly<Partial<Record<ComponentName, { parameters: number; files: readonly string[] }>>>;
}

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the checkpoint */
export async function inspectWan(source: WanSource): Promise<WanInspection> {
  const checkpoint = await openWanCheckpoint(source);
  const graphs = await buildWanNetworks(checkpoint, () => [defaultDialect]);
  await openTokenizer(checkpoint.tokenizer, graphs.text_encoder.weights.files);
  const components = Object.entries(weightsOf(graphs)).filter(([, all]) => all.length > 0);
  return {
    layout: checkpoint.layout,
    variant: variantOf(checkpoint.config.transformer),
    info: describeWan(checkpoint, graphs),
    networks: Object.fromEntries(
      components.map(([component, all]) => [
        component,
        {
          parameters: all.reduce((sum, { parameters }) => sum + parameters, 0),
          files: [...new Set(all.flatMap(({ sources }) => sources))],
        },
      ]),
    ),
  };
}

export function describeWan({ config }: WanCheckpoint, graphs: WanGraphs): ModelInfo {
  const all = Object.values(weightsOf(graphs)).flat();
  const { width, height, ...clip } = trainedVideo(config.transformer);
  return {
    family: 'wan',
    parameters: all.reduce((sum, { parameters }) => sum + parameters, 0),
    weightBytes: all.reduce((sum, { usedBytes }) => sum + usedBytes, 0),
    storage: graphs.transformer.weights.storage,
    predictionType: 'flow',
    schedulers: flowSchedulerNames,
    sizeMultiple: PATCH * pixelsPerLatent(config.vae),
    nativeWidth: width,
    nativeHeight: height,
    clip,
    unused: all.flatMap(({ spare, files }) => spare.map((key) => files.tensors.get(key)?.name ?? key)),
    layers: config.transformer.num_layers,
    frames: frameConditioningOf(config.transformer),
  };
}

/** Every weight once: the small graphs of the transformer and those of first chunks share theirs with the whole ones. */
function weightsOf(graphs: WanGraphs): Readonly<Record<ComponentName, readonly Weights[]>> {
  return {
    transformer: [graphs.transformer.weights],
    vae: [graphs.vae_decoder_later.weights, graphs.vae_encoder_later.weights],
    text_encoder: [graphs.text_encoder.weights],
    image_encoder: graphs.image_encoder === undefined ? [] : [graphs.image_encoder.weights],
  };
}
