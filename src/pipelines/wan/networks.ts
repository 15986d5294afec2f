import type { Backend } from '../../runtime/backend.js';
import { createSession } from '../../runtime/session.js';
import { SessionGroup } from '../../runtime/session-group.js';
import { float32Bytes } from '../common/build-networks.js';
import { type LoraSource, readLoraUpdates } from '../lora/read-lora.js';
import type { ModelInfo } from '../pipeline.js';
import { Autoencoder } from './autoencoder.js';
import { openWanCheckpoint, type WanCheckpoint, type WanSource } from './checkpoint/checkpoint.js';
import { ImageEncoder } from './conditioning/image-encoder.js';
import { Denoiser } from './denoiser.js';
import { describeWan } from './inspect.js';
import { wanLoraNames } from './lora-names.js';
import type { WanConfig } from './model/config.js';
import { PromptCache } from './prompt/prompt-cache.js';
import { openPromptEncoder } from './prompt/prompt-encoder.js';
import { buildWanNetworks } from './weights.js';

export interface WanOptions extends WanSource {
  readonly backend: Backend;
}

/** Parts that a model and all of its variants share. */
interface SharedParts {
  readonly backend: Backend;
  readonly checkpoint: WanCheckpoint;
  readonly info: ModelInfo;
  /** Bytes that a variant holds: a transformer in float32. */
  readonly variantBytes: number;
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
    return this.#parts.info;
  }

  get backend(): Backend {
    return this.#parts.backend;
  }

  get variantBytes(): number {
    return this.#parts.variantBytes;
  }

  /**
   * The same model with LoRAs folded into the weights of its transformer. The rest is shared, and released with the base.
   * @throws InferenceError for a LoRA that cannot be read or does not fit
   */
  async withLoras(loras: readonly LoraSource[]): Promise<WanNetworks> {
    const { backend, checkpoint } = this.#parts;
    const updates = await readLoraUpdates(loras, wanLoraNames(this.config), 'transformer');
    const graphs = await buildWanNetworks(checkpoint, backend.dialect, updates);
    return SessionGroup.fill(backend, async (sessions) => {
      const denoiser = await Denoiser.open(graphs, sessions, this.config.transformer);
      const { prompts, autoencoder, imageEncoder } = this;
      return new WanNetworks(this.#parts, { prompts, denoiser, autoencoder, imageEncoder }, sessions);
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
export async function loadWanNetworks({ backend, ...source }: WanOptions): Promise<WanNetworks> {
  const checkpoint = await openWanCheckpoint(source);
  const { config } = checkpoint;
  const graphs = await buildWanNetworks(checkpoint, backend.dialect);
  const { transformer, text_encoder, image_encoder } = graphs;
  const parts = {
    backend,
    checkpoint,
    info: describeWan(checkpoint, graphs),
    variantBytes: float32Bytes([transformer]),
  };
  return SessionGroup.fill(backend, async (sessions) => {
    const denoiser = await Denoiser.open(graphs, sessions, config.transformer);
    const autoencoder = await Autoencoder.open(graphs, sessions, config.vae);
    const openEncoder = () => openPromptEncoder(checkpoint, text_encoder, backend);
    const prompts = sessions.add(new PromptCache(openEncoder, source.keepsTextEncoder ?? false));
    const imageEncoder =
      image_encoder &&
      config.imageEncoder &&
      new ImageEncoder(() => createSession(image_encoder.graph, backend), config.imageEncoder);
    return new WanNetworks(parts, { prompts, denoiser, autoencoder, imageEncoder }, sessions);
  });
}
