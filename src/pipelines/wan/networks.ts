import type { Backend } from '../../runtime/backend.js';
import { type Network, prepareWeights } from '../common/build-networks.js';
import type { MemoryRelief } from '../common/memory-relief.js';
import { NetworkOpener } from '../common/network-opener.js';
import { SessionGroup } from '../common/session-group.js';
import { SourceFiles } from '../common/source-files.js';
import { type LoraSource, readLoraUpdates } from '../lora/read-lora.js';
import type { ModelMemory } from '../model-memory.js';
import type { ModelInfo } from '../pipeline.js';
import { Autoencoder } from './autoencoder.js';
import { openWanCheckpoint, type WanCheckpoint, type WanSource } from './checkpoint/checkpoint.js';
import { ImageEncoder } from './conditioning/image-encoder.js';
import { Denoiser } from './denoiser.js';
import { describeWan } from './inspect.js';
import { wanLoraNames } from './lora-names.js';
import type { WanConfig } from './model/config.js';
import { wanMemory } from './plan-memory.js';
import { PromptCache } from './prompt/prompt-cache.js';
import { openPromptEncoder } from './prompt/prompt-encoder.js';
import { buildWanNetworks } from './weights.js';

export interface WanOptions extends WanSource {
  readonly backend: Backend;
  /** Frees memory when it runs out. Default: nothing is freed. */
  readonly relief?: MemoryRelief | undefined;
  /** Called with what the checkpoint says of the model, before its weights are read. Omitted: nobody asks. */
  readonly onDescribed?: ((info: ModelInfo) => void) | undefined;
}

/** Parts that a model and all of its variants share. */
interface SharedParts {
  readonly opener: NetworkOpener;
  readonly checkpoint: WanCheckpoint;
  readonly info: ModelInfo;
  readonly keepsTextEncoder: boolean;
  /** The network that a variant has of its own. */
  readonly transformer: Network;
}

/** The networks of one checkpoint, loaded: tensors in, tensors out. */
export class WanNetworks {
  readonly prompts: PromptCache;
  readonly denoiser: Denoiser;
  readonly autoencoder: Autoencoder;
  /** Undefined for a model that takes no images. */
  readonly imageEncoder: ImageEncoder | undefined;
  readonly #parts: SharedParts;
  /** The sessions that it releases. A variant does not release those that it shares with its base. */
  readonly #own: SessionGroup;

  constructor(
    parts: SharedParts,
    networks: Pick<WanNetworks, 'prompts' | 'denoiser' | 'autoencoder' | 'imageEncoder'>,
    own: SessionGroup,
  ) {
    this.#parts = parts;
    this.prompts = networks.prompts;
    this.denoiser = networks.denoiser;
    this.autoencoder = networks.autoencoder;
    this.imageEncoder = networks.imageEncoder;
    this.#own = own;
  }

  get config(): WanConfig {
    return this.#parts.checkpoint.config;
  }

  get info(): ModelInfo {
    const { info, opener } = this.#parts;
    return { ...info, precisions: opener.precisions };
  }

  /** Computes what the networks take on the device, each as it was opened. */
  planMemory(): ModelMemory {
    return wanMemory(this.#parts.opener.networks, this.config, this.#parts);
  }

  /** What to do when memory runs out. */
  get relief(): MemoryRelief {
    return this.#parts.opener.relief;
  }

  get backend(): Backend {
    return this.#parts.opener.backend;
  }

  /** Bytes that the weights of a variant take. */
  get variantBytes(): number {
    const { opener, transformer } = this.#parts;
    return opener.weightBytes([transformer]);
  }

  /**
   * The same model with LoRAs folded into the weights of its transformer. The rest is shared, and released with the base.
   * @throws InferenceError for a LoRA that cannot be read or does not fit
   */
  async withLoras(loras: readonly LoraSource[]): Promise<WanNetworks> {
    const parts = { ...this.#parts, opener: this.#parts.opener.forVariant() };
    const { opener, checkpoint } = parts;
    const updates = await readLoraUpdates(loras, wanLoraNames(this.config), 'transformer');
    const { dialectsOf, quantised } = opener.backend;
    const graphs = await opener.sources.reading(() => buildWanNetworks(checkpoint, dialectsOf, { updates, quantised }));
    return SessionGroup.fill(opener, async (sessions) => {
      const denoiser = await Denoiser.open(graphs, sessions, this.config.transformer);
      const { prompts, autoencoder, imageEncoder } = this;
      return new WanNetworks(parts, { prompts, denoiser, autoencoder, imageEncoder }, sessions);
    });
  }

  release(): Promise<void> {
    return this.#own.release();
  }
}

/**
 * Loads the transformer and the VAE of a checkpoint: sessions are built here, once, for every size and batch. The text encoder is
 * checked here and loaded with the first prompt, the image encoder with the first image.
 */
export async function loadWanNetworks({ backend, relief, onDescribed, ...source }: WanOptions): Promise<WanNetworks> {
  const checkpoint = await openWanCheckpoint(source);
  const { config } = checkpoint;
  const { quantised, cardBytes } = backend;
  const graphs = await buildWanNetworks(checkpoint, backend.dialectsOf, { quantised, cardBytes });
  const { transformer, text_encoder, image_encoder } = graphs;
  const info = describeWan(checkpoint, graphs);
  onDescribed?.(info);
  // Those that are opened with the first prompt, too: a job does not wait for a conversion.
  await prepareWeights(Object.values(graphs));
  const sources = await SourceFiles.of(Object.values(graphs));
  const opener = new NetworkOpener(backend, Object.values(graphs), { relief, sources });
  const { keepsTextEncoder = false } = source;
  const parts = { opener, checkpoint, info, keepsTextEncoder, transformer };
  return SessionGroup.fill(opener, async (sessions) => {
    const denoiser = await Denoiser.open(graphs, sessions, config.transformer);
    const autoencoder = await Autoencoder.open(graphs, sessions, config.vae);
    const encoder: Network = keepsTextEncoder ? { ...text_encoder, residence: 'always' } : text_encoder;
    const openEncoder = () => openPromptEncoder(checkpoint, encoder, opener);
    const prompts = sessions.add(new PromptCache(openEncoder, keepsTextEncoder));
    const imageEncoder =
      image_encoder && config.imageEncoder && new ImageEncoder(() => opener.open(image_encoder), config.imageEncoder);
    return new WanNetworks(parts, { prompts, denoiser, autoencoder, imageEncoder }, sessions);
  });
}
