import { InferenceError, listProblems } from '../../errors.js';
import { type Dialect, defaultDialect } from '../../graph/dialect.js';
import { Graph } from '../../graph/graph.js';
import { Weights, type WeightsOptions } from '../../graph/weights.js';
import { type ComponentName, componentNames, type SdxlCheckpoint } from './checkpoint/checkpoint.js';
import type { SdxlConfig } from './model/config.js';
import { buildTextEncoder, unusedTextEncoderKeys } from './model/text-encoder.js';
import { buildUNet } from './model/unet.js';
import {
  buildVaeDecoder,
  buildVaeEncoder,
  unusedVaeDecoderKeys,
  unusedVaeEncoderKeys,
  vaeAliases,
} from './model/vae.js';

export const networkNames = ['text_encoder', 'text_encoder_2', 'unet', 'vae_decoder', 'vae_encoder'] as const;
export type NetworkName = (typeof networkNames)[number];

/** One network of the checkpoint: its graph over its file, and what was found there. */
export interface Network {
  readonly graph: Graph;
  readonly weights: Weights;
}

export type Networks = Readonly<Record<NetworkName, Network>>;

interface Builder {
  /** The part of the checkpoint that holds its weights. */
  readonly component: ComponentName;
  readonly options: WeightsOptions;
  build(weights: Weights): void;
}

function builders(config: SdxlConfig): Readonly<Record<NetworkName, Builder>> {
  return {
    text_encoder: {
      component: 'text_encoder',
      options: { unused: unusedTextEncoderKeys(config.textEncoder, false) },
      build: ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder, false),
    },
    text_encoder_2: {
      component: 'text_encoder_2',
      options: { unused: unusedTextEncoderKeys(config.textEncoder2, true) },
      build: ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder2, true),
    },
    unet: {
      component: 'unet',
      options: {},
      build: ({ graph, root }) => buildUNet(graph, root, config.unet),
    },
    vae_decoder: {
      component: 'vae',
      options: { aliases: vaeAliases, unused: unusedVaeDecoderKeys },
      build: ({ graph, root }) => buildVaeDecoder(graph, root, config.vae),
    },
    vae_encoder: {
      component: 'vae',
      options: { aliases: vaeAliases, unused: unusedVaeEncoderKeys },
      build: ({ graph, root }) => buildVaeEncoder(graph, root, config.vae),
    },
  };
}

/** Names and shapes of all tensors that a checkpoint of a configuration has, in the names of diffusers. */
export function planSdxlWeights(config: SdxlConfig): Readonly<Record<ComponentName, [string, readonly number[]][]>> {
  const planned = Object.values(builders(config)).map(({ component, build }) => [component, plan(build)] as const);
  const of = (name: ComponentName) =>
    planned.filter(([component]) => component === name).flatMap(([, wanted]) => wanted);
  // Files hold the layers of the first encoder that no picture needs.
  const whole = plan(({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder, true));
  return {
    text_encoder: whole.filter(([name]) => name !== 'text_projection.weight'),
    text_encoder_2: of('text_encoder_2'),
    unet: of('unet'),
    vae: of('vae'),
  };
}

function plan(build: Builder['build']): [string, readonly number[]][] {
  const weights = new Weights(new Graph('plan', defaultDialect), {
    path: '',
    tensors: new Map(),
    metadata: {},
  });
  build(weights);
  return [...weights.wanted];
}

/**
 * Builds the graphs over a checkpoint. Reads headers only, no weights.
 * @param updates what LoRAs add to the weights of each component
 * @throws InferenceError CHECKPOINT_INVALID that lists the problems of all networks together
 */
export async function buildSdxlNetworks(
  checkpoint: SdxlCheckpoint,
  dialect: Dialect,
  updates: (component: ComponentName) => WeightsOptions['updates'] = () => undefined,
): Promise<Networks> {
  const problems = new Set<string>();
  const note = (error: unknown) => {
    if (!(error instanceof InferenceError)) throw error;
    problems.add(error.message);
  };
  const networks: Partial<Record<NetworkName, Network>> = {};
  for (const component of componentNames) {
    const files = await checkpoint.readWeights(component).catch(note);
    if (files === undefined) continue;
    for (const name of networkNames) {
      const builder = builders(checkpoint.config)[name];
      if (builder.component !== component) continue;
      // Single files carry whatever their makers' tools left in them.
      const added = updates(component);
      const options = {
        ...builder.options,
        refusesSpare: checkpoint.layout === 'diffusers',
        ...(added && { updates: added }),
      };
      const weights = new Weights(new Graph(name, dialect), files, options);
      try {
        builder.build(weights);
      } catch (error) {
        note(error);
      }
      for (const problem of weights.problems) problems.add(`${component}: ${problem}`);
      networks[name] = { graph: weights.graph, weights };
    }
  }
  const { text_encoder, text_encoder_2, unet, vae_decoder, vae_encoder } = networks;
  if (problems.size > 0 || !text_encoder || !text_encoder_2 || !unet || !vae_decoder || !vae_encoder) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${checkpoint.path} is not a whole SDXL checkpoint:\n${listProblems([...problems])}`,
    );
  }
  return { text_encoder, text_encoder_2, unet, vae_decoder, vae_encoder };
}
