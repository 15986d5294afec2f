import { join } from 'node:path';
import { InferenceError, listProblems } from '../../errors.js';
import type { Dialect } from '../../graph/dialect.js';
import { Graph } from '../../graph/graph.js';
import { readWeightFiles } from '../../graph/weight-files.js';
import { Weights, type WeightsOptions } from '../../graph/weights.js';
import type { SdxlConfig } from './config.js';
import { buildTextEncoder, unusedTextEncoderKeys } from './text-encoder.js';
import { buildUNet } from './unet.js';
import { buildVaeDecoder, unusedVaeKeys, vaeAliases } from './vae.js';

export const networkNames = ['text_encoder', 'text_encoder_2', 'unet', 'vae'] as const;
export type NetworkName = (typeof networkNames)[number];

/** One network of the checkpoint: its graph over its file, and what was found there. */
export interface Network {
  readonly graph: Graph;
  readonly weights: Weights;
}

interface Builder {
  readonly stems: readonly string[];
  readonly options: WeightsOptions;
  build(weights: Weights): void;
}

function builders(config: SdxlConfig): Readonly<Record<NetworkName, Builder>> {
  return {
    text_encoder: {
      stems: ['model'],
      options: { unused: unusedTextEncoderKeys(config.textEncoder, false) },
      build: ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder, false),
    },
    text_encoder_2: {
      stems: ['model'],
      options: { unused: unusedTextEncoderKeys(config.textEncoder2, true) },
      build: ({ graph, root }) => buildTextEncoder(graph, root, config.textEncoder2, true),
    },
    unet: {
      stems: ['diffusion_pytorch_model'],
      options: {},
      build: ({ graph, root }) => buildUNet(graph, root, config.unet),
    },
    vae: {
      stems: ['diffusion_pytorch_model'],
      options: { aliases: vaeAliases, unused: unusedVaeKeys },
      build: ({ graph, root }) => buildVaeDecoder(graph, root, config.vae),
    },
  };
}

/** Names and shapes of all tensors that a configuration asks for. */
export function planSdxlWeights(config: SdxlConfig): Readonly<Record<NetworkName, [string, readonly number[]][]>> {
  const plan = (name: NetworkName): [string, readonly number[]][] => {
    const files = { path: name, tensors: new Map(), metadata: {} };
    const weights = new Weights(new Graph(name, { attention: 'fused' }), files);
    builders(config)[name].build(weights);
    return [...weights.wanted];
  };
  return {
    text_encoder: plan('text_encoder'),
    text_encoder_2: plan('text_encoder_2'),
    unet: plan('unet'),
    vae: plan('vae'),
  };
}

/**
 * Builds the four graphs over a diffusers-layout folder. Reads headers only, no weights.
 * @throws InferenceError CHECKPOINT_INVALID that lists the problems of all four networks together
 */
export async function buildSdxlNetworks(
  folder: string,
  config: SdxlConfig,
  dialect: Dialect,
): Promise<Readonly<Record<NetworkName, Network>>> {
  const problems: string[] = [];
  const networks: Partial<Record<NetworkName, Network>> = {};
  for (const name of networkNames) {
    const { stems, options, build } = builders(config)[name];
    try {
      const weights = new Weights(new Graph(name, dialect), await readWeightFiles(join(folder, name), stems), options);
      build(weights);
      problems.push(...weights.problems.map((problem) => `${name}: ${problem}`));
      networks[name] = { graph: weights.graph, weights };
    } catch (error) {
      if (!(error instanceof InferenceError)) throw error;
      problems.push(error.message);
    }
  }
  const { text_encoder, text_encoder_2, unet, vae } = networks;
  if (problems.length > 0 || !text_encoder || !text_encoder_2 || !unet || !vae) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${folder} is not a whole SDXL checkpoint:\n${listProblems(problems)}`,
    );
  }
  return { text_encoder, text_encoder_2, unet, vae };
}
