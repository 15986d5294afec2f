import { InferenceError, listProblems } from '../../errors.js';
import { type Dialect, defaultDialect } from '../../graph/dialect.js';
import { Graph } from '../../graph/graph.js';
import { Weights, type WeightsOptions } from '../../graph/weights.js';
import type { WanCheckpoint } from './checkpoint/checkpoint.js';
import type { ComponentName } from './checkpoint/checkpoint-parts.js';
import type { WanConfig } from './model/config.js';
import { buildReusingTransformer, buildTimeEmbedder, buildTransformer } from './model/transformer.js';
import { buildVaeDecoder, buildVaeEncoder, type ChunkKind, unusedVaeKeys } from './model/vae.js';

/**
 * The transformer has two small graphs beside the whole one, for steps that leave its blocks out. The VAE has a graph for a
 * clip's first frame and one for all later chunks, each way.
 */
export const networkNames = [
  'transformer',
  'transformer_reusing',
  'transformer_time',
  'vae_decoder_first',
  'vae_decoder_later',
  'vae_encoder_first',
  'vae_encoder_later',
] as const;
export type NetworkName = (typeof networkNames)[number];

/** One network of the checkpoint: its graph over its file, and what was found there. */
export interface Network {
  readonly graph: Graph;
  readonly weights: Weights;
}

export type Networks = Readonly<Record<NetworkName, Network>>;

/** What is spare in the transformer's file is seen by its whole graph. */
const OF_ALL_STEPS = [/^/];

interface Builder {
  /** The part of the checkpoint that holds its weights. */
  readonly component: 'transformer' | 'vae';
  readonly options: WeightsOptions;
  build(weights: Weights): void;
}

function builders(config: WanConfig): Readonly<Record<NetworkName, Builder>> {
  const decoder = (kind: ChunkKind): Builder => ({
    component: 'vae',
    options: { unused: unusedVaeKeys('decoder', kind) },
    build: ({ graph, root }) => buildVaeDecoder(graph, root, config.vae, kind),
  });
  const encoder = (kind: ChunkKind): Builder => ({
    component: 'vae',
    options: { unused: unusedVaeKeys('encoder', kind) },
    build: ({ graph, root }) => buildVaeEncoder(graph, root, config.vae, kind),
  });
  return {
    transformer: {
      component: 'transformer',
      // Of image-to-video, stored by the first converters and used by nobody.
      options: { unused: [/\.attn2\.norm_added_q\.weight$/] },
      build: ({ graph, root }) => buildTransformer(graph, root, config.transformer),
    },
    transformer_reusing: {
      component: 'transformer',
      options: { unused: OF_ALL_STEPS },
      build: ({ graph, root }) => buildReusingTransformer(graph, root, config.transformer),
    },
    transformer_time: {
      component: 'transformer',
      options: { unused: OF_ALL_STEPS },
      build: ({ graph, root }) => buildTimeEmbedder(graph, root, config.transformer),
    },
    vae_decoder_first: decoder('first'),
    vae_decoder_later: decoder('later'),
    vae_encoder_first: encoder('first'),
    vae_encoder_later: encoder('later'),
  };
}

/** Names and shapes of all tensors that a configuration asks for, in the names of diffusers. */
export function planWanWeights(
  config: WanConfig,
): Readonly<Record<Builder['component'], readonly (readonly [string, readonly number[]])[]>> {
  const planned = { transformer: new Map<string, readonly number[]>(), vae: new Map<string, readonly number[]>() };
  for (const { component, build } of Object.values(builders(config))) {
    const files = { path: component, tensors: new Map(), metadata: {} };
    const weights = new Weights(new Graph(component, defaultDialect), files);
    build(weights);
    for (const [name, shape] of weights.wanted) planned[component].set(name, shape);
  }
  return { transformer: [...planned.transformer], vae: [...planned.vae] };
}

/**
 * Builds the graphs over a checkpoint. Reads headers only, no weights.
 * @param updates what LoRAs add to the transformer's weights
 * @throws InferenceError CHECKPOINT_INVALID that lists the problems of all networks together
 */
export async function buildWanNetworks(
  checkpoint: WanCheckpoint,
  dialect: Dialect,
  updates?: WeightsOptions['updates'],
): Promise<Networks> {
  const problems = new Set<string>();
  const note = (error: unknown) => {
    if (!(error instanceof InferenceError)) throw error;
    problems.add(error.message);
  };
  const read = async (name: ComponentName) => checkpoint.readWeights(name).catch(note);
  const files = { transformer: await read('transformer'), vae: await read('vae') };
  const build = (name: NetworkName): Network | undefined => {
    const builder = builders(checkpoint.config)[name];
    const source = files[builder.component];
    if (source === undefined) return undefined;
    // Single files carry whatever their makers' tools left in them.
    const options = {
      ...builder.options,
      refusesSpare: checkpoint.layout === 'diffusers',
      ...(builder.component === 'transformer' && updates && { updates }),
    };
    const weights = new Weights(new Graph(name, dialect), source, options);
    try {
      builder.build(weights);
    } catch (error) {
      note(error);
    }
    for (const problem of weights.problems) problems.add(`${builder.component}: ${problem}`);
    return { graph: weights.graph, weights };
  };
  const transformer = build('transformer');
  const transformer_reusing = build('transformer_reusing');
  const transformer_time = build('transformer_time');
  const vae_decoder_first = build('vae_decoder_first');
  const vae_decoder_later = build('vae_decoder_later');
  const vae_encoder_first = build('vae_encoder_first');
  const vae_encoder_later = build('vae_encoder_later');
  if (
    problems.size > 0 ||
    !transformer ||
    !transformer_reusing ||
    !transformer_time ||
    !vae_decoder_first ||
    !vae_decoder_later ||
    !vae_encoder_first ||
    !vae_encoder_later
  ) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${checkpoint.path} is not a whole WAN checkpoint:\n${listProblems([...problems])}`,
    );
  }
  return {
    transformer,
    transformer_reusing,
    transformer_time,
    vae_decoder_first,
    vae_decoder_later,
    vae_encoder_first,
    vae_encoder_later,
  };
}
