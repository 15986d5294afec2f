import type { Backend } from '../../runtime/backend.js';
import { SessionGroup } from '../../runtime/session-group.js';
import type { ClipTokenizer } from '../../tokenizer/clip.js';
import { float32Bytes } from '../common/build-networks.js';
import { type LoraSource, readLoraUpdates } from '../lora/read-lora.js';
import type { ModelInfo } from '../pipeline.js';
import { Autoencoder } from './autoencoder.js';
import { openSdxlCheckpoint, type SdxlCheckpoint, type SdxlSource } from './checkpoint/checkpoint.js';
import { Denoiser } from './denoiser.js';
import { describeSdxl } from './inspect.js';
import { sdxlLoraNames } from './lora-names.js';
import type { SdxlConfig } from './model/config.js';
import { PromptCache } from './prompt/prompt-cache.js';
import { PromptEncoder } from './prompt/prompt-encoder.js';
import { buildSdxlNetworks, type SdxlGraphs } from './weights.js';

export interface SdxlOptions extends SdxlSource {
  readonly backend: Backend;
}

/** Parts that a model and all of its variants share. */
interface SharedParts {
  readonly backend: Backend;
  readonly checkpoint: SdxlCheckpoint;
  readonly tokenizers: readonly [ClipTokenizer, ClipTokenizer];
  readonly info: ModelInfo;
  /** Bytes that a variant holds at most: a UNet and both text encoders in float32. */
  readonly variantBytes: number;
}

/** The networks of one checkpoint, loaded: tensors in, tensors out. */
export class SdxlNetworks {
  readonly prompts: PromptCache;
  readonly denoiser: Denoiser;
  readonly autoencoder: Autoencoder;
  readonly #parts: SharedParts;
  /** The sessions that it releases. A variant does not release those that it shares with its base. */
  readonly #own: SessionGroup;

  constructor(
    parts: SharedParts,
    { prompts, denoiser, autoencoder }: Pick<SdxlNetworks, 'prompts' | 'denoiser' | 'autoencoder'>,
    own: SessionGroup,
  ) {
    this.#parts = parts;
    this.prompts = prompts;
    this.denoiser = denoiser;
    this.autoencoder = autoencoder;
    this.#own = own;
  }

  get config(): SdxlConfig {
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
   * The same model with LoRAs folded into its weights: a UNet of its own, and text encoders where these are changed. The rest is
   * shared, and released with the base.
   * @throws InferenceError for a LoRA that cannot be read or does not fit
   */
  async withLoras(loras: readonly LoraSource[]): Promise<SdxlNetworks> {
    const { backend, checkpoint } = this.#parts;
    const updates = await readLoraUpdates(loras, sdxlLoraNames(this.config), 'unet');
    const graphs = await buildSdxlNetworks(checkpoint, backend.dialect, updates);
    const changesText = updates.has('text_encoder') || updates.has('text_encoder_2');
    return SessionGroup.fill(backend, async (sessions) => {
      const denoiser = new Denoiser(await sessions.open(graphs.unet.graph), this.config.unet);
      const prompts = changesText ? await openPrompts(this.#parts, graphs, sessions) : this.prompts;
      return new SdxlNetworks(this.#parts, { prompts, denoiser, autoencoder: this.autoencoder }, sessions);
    });
  }

  release(): Promise<void> {
    return this.#own.release();
  }
}

/** Loads a checkpoint: sessions are built here, once, for every size and batch. */
export async function loadSdxlNetworks({ backend, ...source }: SdxlOptions): Promise<SdxlNetworks> {
  const checkpoint = await openSdxlCheckpoint(source);
  const { config } = checkpoint;
  const tokenizers = await checkpoint.readTokenizers();
  const graphs = await buildSdxlNetworks(checkpoint, backend.dialect);
  const variantBytes = float32Bytes([graphs.unet, graphs.text_encoder, graphs.text_encoder_2]);
  const parts = { backend, checkpoint, tokenizers, info: describeSdxl(checkpoint, graphs), variantBytes };
  return SessionGroup.fill(backend, async (sessions) => {
    const prompts = await openPrompts(parts, graphs, sessions);
    const denoiser = new Denoiser(await sessions.open(graphs.unet.graph), config.unet);
    const autoencoder = await Autoencoder.open(graphs, sessions, config.vae);
    return new SdxlNetworks(parts, { prompts, denoiser, autoencoder }, sessions);
  });
}

async function openPrompts(
  { checkpoint: { config }, tokenizers: [tokenizer, tokenizer2] }: SharedParts,
  { text_encoder, text_encoder_2 }: SdxlGraphs,
  sessions: SessionGroup,
): Promise<PromptCache> {
  const first = { tokenizer, session: await sessions.open(text_encoder.graph), config: config.textEncoder };
  const second = {
    tokenizer: tokenizer2,
    session: await sessions.open(text_encoder_2.graph),
    config: config.textEncoder2,
  };
  return new PromptCache(new PromptEncoder(first, second));
}
