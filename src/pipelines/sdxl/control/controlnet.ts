import type { HalfType } from '../../../graph/dialect.js';
import type { Graph } from '../../../graph/graph.js';
import { type CarriedTensors, type Feed, outputOf, type SessionOptions } from '../../../runtime/session.js';
import { join32 } from '../../../std/concat-float32.js';
import type { WeightFiles } from '../../../weights/weight-files.js';
import {
  buildNetworks,
  type Network,
  type NetworkBuilder,
  planWeights,
  type WeightPlan,
} from '../../common/build-networks.js';
import type { NetworkOpener } from '../../common/network-opener.js';
import { type OnDemandSession, SessionGroup } from '../../common/session-group.js';
import { timestepEmbedding } from '../../common/timestep-embedding.js';
import { type ControlNetCheckpoint, openControlNet } from '../checkpoint/controlnet.js';
import type { SdxlConfig, UNetConfig } from '../model/config.js';
import { buildControlHint, buildControlNet, type ControlNetConfig } from '../model/controlnet.js';
import { noResidualSizes, residualCount, residualName } from '../model/unet.js';

/** Tokens of a prompt of one chunk. */
const PROMPT_TOKENS = 77;

/** A ControlNet, which opens with the first run. Idle ones are released where memory runs out. */
export class ControlNet {
  readonly #hint: OnDemandSession;
  readonly #network: OnDemandSession;
  readonly #group: SessionGroup;
  readonly #isBgr: boolean;

  readonly #config: ControlNetConfig;

  private constructor(
    group: SessionGroup,
    { hint, network }: { readonly hint: Network; readonly network: Network },
    { config, isBgr }: ControlNetCheckpoint,
  ) {
    this.#group = group;
    this.#config = config;
    this.#isBgr = isBgr;
    this.#hint = group.onDemand(hint);
    this.#network = group.onDemand(network, keepsResiduals);
  }

  /** Reads its header and builds its graphs. @throws InferenceError that lists what does not fit the model */
  static async open(path: string, base: SdxlConfig, opener: NetworkOpener): Promise<ControlNet> {
    const checkpoint = await openControlNet(path, base);
    const networks = await buildControlNetworks(path, checkpoint, opener.backend.dialectsOf);
    return new ControlNet(new SessionGroup(opener), networks, checkpoint);
  }

  /**
   * The embedding of a control image. image: uint8 [height, width, 3] -> [C0, height / 8, width / 8]
   * @param options `mode`: kind of the image, for a union model
   */
  async embed(
    image: Uint8Array,
    { width, height }: { readonly width: number; readonly height: number },
    { mode = 0, signal }: { readonly mode?: number | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Float32Array> {
    const area = width * height;
    const planar = new Float32Array(3 * area);
    for (let colour = 0; colour < 3; colour += 1) {
      const from = this.#isBgr ? 2 - colour : colour;
      for (let i = 0; i < area; i += 1) planar[colour * area + i] = (image[3 * i + from] ?? 0) / 255;
    }
    const session = await this.#hint();
    const kind = this.#config.union && { mode: { data: Int32Array.of(mode), shape: [1] } };
    const feeds = { image: { data: planar, shape: [1, 3, height, width] }, ...kind };
    const outputs = await session.run(feeds, { signal });
    return outputOf(outputs, 'hint', 'the ControlNet');
  }

  /**
   * One run, over the batch that the UNet is going to see. What it adds is left in `carried`, on top of what was there.
   * @param feeds of the UNet, without residuals that are carried
   */
  async run(
    feeds: Readonly<Record<string, Feed>>,
    { hint, scale, modes }: { readonly hint: Feed; readonly scale: Feed; readonly modes: readonly number[] },
    { carried, signal }: { readonly carried: CarriedTensors; readonly signal?: AbortSignal | undefined },
  ): Promise<void> {
    const session = await this.#network();
    await session.run({ ...feeds, hint, scale, ...this.#modeFeeds(modes) }, { carried, signal });
  }

  /** @param modes the kind of each row's image */
  #modeFeeds(modes: readonly number[]): Readonly<Record<string, Feed>> {
    const { union, unet } = this.#config;
    if (union === undefined) return {};
    const width = unet.addition_time_embed_dim;
    const options = { flipSinToCos: unet.flip_sin_to_cos, freqShift: unet.freq_shift };
    const [off, on] = [timestepEmbedding(0, width, options), timestepEmbedding(1, width, options)];
    const rows = modes.flatMap((mode) => Array.from({ length: union.modes }, (_, i) => (i === mode ? on : off)));
    return { modes: { data: join32(rows), shape: [modes.length, union.modes * width] } };
  }

  release(): Promise<void> {
    return this.#group.release();
  }
}

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the file */
export async function buildControlNetworks(
  path: string,
  { files, config }: Pick<ControlNetCheckpoint, 'files' | 'config'>,
  dialectsOf: NetworkOpener['backend']['dialectsOf'],
): Promise<{ readonly hint: Network; readonly network: Network }> {
  const source = { path, layout: 'diffusers', readWeights: async (): Promise<WeightFiles> => files } as const;
  return buildNetworks(source, { model: 'ControlNet', table: controlNetTable(config), dialectsOf });
}

function controlNetTable(config: ControlNetConfig) {
  const halves: readonly HalfType[] = ['f16', 'bf16'];
  // 8 pixels a latent, as the hint shrinks them.
  const scale = 2 ** (config.hintChannels.length - 1);
  return {
    hint: {
      component: 'controlnet',
      residence: 'always',
      halves,
      sizes: ({ width, height }) => ({ B: 1, H: height, W: width }),
      build: ({ graph, root }) => buildControlHint(graph, root, config),
    },
    network: {
      component: 'controlnet',
      residence: 'always',
      halves,
      sizes: ({ rows, width, height }) => ({
        ...{ B: rows, T: PROMPT_TOKENS, H: height / scale, W: width / scale },
        ...noResidualSizes(config.unet),
      }),
      build: ({ graph, root }) => buildControlNet(graph, root, config),
    },
  } as const satisfies Record<string, NetworkBuilder<'controlnet'>>;
}

/** What a ControlNet adds stays on the device, for the ControlNet behind it and the UNet. */
function keepsResiduals({ outputs }: Graph): SessionOptions {
  return { holds: new Map(outputs.map((output, i) => [output, residualName(i)])) };
}

/** Names and shapes of all tensors of a ControlNet, in diffusers' names. */
export function planControlNetWeights(config: ControlNetConfig): WeightPlan {
  const { controlnet } = planWeights(['controlnet'], controlNetTable(config));
  return controlnet;
}

/** Residuals of a run without ControlNets. */
export function zeroResiduals(unet: Pick<UNetConfig, 'layers'>): Readonly<Record<string, Feed>> {
  const zero = { data: new Float32Array(1), shape: [1, 1, 1, 1] };
  return Object.fromEntries(Array.from({ length: residualCount(unet) }, (_, i) => [residualName(i), zero]));
}
