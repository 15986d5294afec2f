import type { Backend } from '../../runtime/backend.js';
import type { ClipTokenizer } from '../../tokenizer/clip.js';
import { type Network, prepareWeights } from '../common/build-networks.js';
import { KeptFiles } from '../common/kept-files.js';
import type { MemoryRelief } from '../common/memory-relief.js';
import { NetworkOpener } from '../common/network-opener.js';
import { modelMemory } from '../common/plan-memory.js';
import { SessionGroup } from '../common/session-group.js';
import { SourceFiles } from '../common/source-files.js';
import { type LoraSource, readLoraUpdates } from '../lora/read-lora.js';
import type { ModelMemory } from '../model-memory.js';
import type { ModelInfo } from '../pipeline.js';
import { Upscaler } from '../upscalers/upscaler.js';
import { Autoencoder } from './autoencoder.js';
import { openSdxlCheckpoint, type SdxlCheckpoint, type SdxlSource } from './checkpoint/checkpoint.js';
import { ControlNet } from './control/controlnet.js';
import { ImagePrompts } from './control/image-prompts.js';
import { Denoiser } from './denoiser.js';
import { describeSdxl } from './inspect.js';
import { sdxlLoraNames } from './lora-names.js';
import type { SdxlConfig } from './model/config.js';
import { PromptCache } from './prompt/prompt-cache.js';
import { PromptEncoder } from './prompt/prompt-encoder.js';
import { buildSdxlNetworks, type SdxlGraphs } from './weights.js';

export interface SdxlOptions extends SdxlSource {
  readonly backend: Backend;
  /** Frees memory when it runs out. Default: nothing is freed. */
  readonly relief?: MemoryRelief | undefined;
  /** Called with what the checkpoint says of the model, before its weights are read. Omitted: nobody asks. */
  readonly onDescribed?: ((info: ModelInfo) => void) | undefined;
}

/** Parts that a model and all of its variants share. */
interface SharedParts {
  readonly opener: NetworkOpener;
  readonly checkpoint: SdxlCheckpoint;
  readonly controlNets: KeptFiles<ControlNet>;
  readonly upscalers: KeptFiles<Upscaler>;
  readonly tokenizers: readonly [ClipTokenizer, ClipTokenizer];
  readonly info: ModelInfo;
  /** Networks that a variant has at most of its own: a UNet and both text encoders. */
  readonly changeable: readonly Network[];
}

/** The networks of one checkpoint, loaded: tensors in, tensors out. */
export class SdxlNetworks {
  readonly prompts: PromptCache;
  readonly denoiser: Denoiser;
  readonly autoencoder: Autoencoder;
  /** Undefined for a model without an IP-Adapter. */
  readonly imagePrompts: ImagePrompts | undefined;
  readonly controlNets: KeptFiles<ControlNet>;
  readonly upscalers: KeptFiles<Upscaler>;
  readonly #parts: SharedParts;
  /** The sessions that it releases. A variant does not release those that it shares with its base. */
  readonly #own: SessionGroup;

  constructor(
    parts: SharedParts,
    {
      prompts,
      denoiser,
      autoencoder,
      imagePrompts,
    }: Pick<SdxlNetworks, 'prompts' | 'denoiser' | 'autoencoder' | 'imagePrompts'>,
    own: SessionGroup,
  ) {
    this.#parts = parts;
    this.prompts = prompts;
    this.denoiser = denoiser;
    this.autoencoder = autoencoder;
    this.imagePrompts = imagePrompts;
    this.controlNets = parts.controlNets;
    this.upscalers = parts.upscalers;
    this.#own = own;
  }

  get config(): SdxlConfig {
    return this.#parts.checkpoint.config;
  }

  get info(): ModelInfo {
    const { info, opener } = this.#parts;
    return { ...info, precisions: opener.precisions };
  }

  /** Computes what the networks take on the device, each as it was opened. */
  planMemory(): ModelMemory {
    const { opener, info } = this.#parts;
    const { nativeWidth: width, nativeHeight: height } = info;
    return modelMemory(opener.networks, { width, height, frames: 1 });
  }

  /** What to do when memory runs out. */
  get relief(): MemoryRelief {
    return this.#parts.opener.relief;
  }

  get backend(): Backend {
    return this.#parts.opener.backend;
  }

  /** Bytes that the weights of a variant take at most. */
  get variantBytes(): number {
    const { opener, changeable } = this.#parts;
    return opener.weightBytes(changeable);
  }

  /**
   * The same model with LoRAs folded into its weights: a UNet of its own, and text encoders where these are changed. The rest is
   * shared, and released with the base.
   * @throws InferenceError for a LoRA that cannot be read or does not fit
   */
  async withLoras(loras: readonly LoraSource[]): Promise<SdxlNetworks> {
    const parts = { ...this.#parts, opener: this.#parts.opener.forVariant() };
    const { opener, checkpoint } = parts;
    const updates = await readLoraUpdates(loras, sdxlLoraNames(this.config), 'unet');
    const { dialectsOf, quantised } = opener.backend;
    const graphs = await opener.sources.reading(() =>
      buildSdxlNetworks(checkpoint, dialectsOf, { updates, quantised }),
    );
    const changesText = updates.has('text_encoder') || updates.has('text_encoder_2');
    return SessionGroup.fill(opener, async (sessions) => {
      const denoiser = await Denoiser.open(graphs, sessions, this.config);
      const prompts = changesText ? await openPrompts(parts, graphs, sessions) : this.prompts;
      const { autoencoder, imagePrompts } = this;
      return new SdxlNetworks(parts, { prompts, denoiser, autoencoder, imagePrompts }, sessions);
    });
  }

  release(): Promise<void> {
    return this.#own.release();
  }
}

/** Loads a checkpoint: sessions are built here, once, for every size and batch. */
export async function loadSdxlNetworks({
  backend,
  relief,
  onDescribed,
  ...source
}: SdxlOptions): Promise<SdxlNetworks> {
  const checkpoint = await openSdxlCheckpoint(source);
  const { config } = checkpoint;
  const tokenizers = await checkpoint.readTokenizers();
  const graphs = await buildSdxlNetworks(checkpoint, backend.dialectsOf, { quantised: backend.quantised });
  const info = describeSdxl(checkpoint, graphs);
  onDescribed?.(info);
  await prepareWeights(Object.values(graphs));
  const sources = await SourceFiles.of(Object.values(graphs));
  const opener = new NetworkOpener(backend, Object.values(graphs), { relief, sources });
  const changeable = [graphs.unet, graphs.text_encoder, graphs.text_encoder_2];
  const besides = opener.forVariant();
  const controlNets = new KeptFiles((path) => ControlNet.open(path, config, besides));
  const upscalers = new KeptFiles((path) => Upscaler.open(path, besides));
  const parts = { opener, checkpoint, controlNets, upscalers, tokenizers, info, changeable };
  return SessionGroup.fill(opener, async (sessions) => {
    sessions.add(controlNets);
    sessions.add(upscalers);
    const prompts = await openPrompts(parts, graphs, sessions);
    const denoiser = await Denoiser.open(graphs, sessions, config);
    const autoencoder = await Autoencoder.open(graphs, sessions, config.vae);
    const imagePrompts = openImagePrompts(graphs, sessions, config);
    return new SdxlNetworks(parts, { prompts, denoiser, autoencoder, imagePrompts }, sessions);
  });
}

function openImagePrompts(
  { image_encoder: encoder, image_projection: projection }: SdxlGraphs,
  sessions: SessionGroup,
  { imagePrompt }: SdxlConfig,
): ImagePrompts | undefined {
  if (encoder === undefined || projection === undefined || imagePrompt === undefined) return undefined;
  return new ImagePrompts(sessions.onDemand(encoder), sessions.onDemand(projection), imagePrompt);
}

async function openPrompts(
  { checkpoint: { config }, tokenizers: [tokenizer, tokenizer2] }: SharedParts,
  { text_encoder, text_encoder_2 }: SdxlGraphs,
  sessions: SessionGroup,
): Promise<PromptCache> {
  const first = { tokenizer, session: await sessions.open(text_encoder), config: config.textEncoder };
  const second = {
    tokenizer: tokenizer2,
    session: await sessions.open(text_encoder_2),
    config: config.textEncoder2,
  };
  return new PromptCache(new PromptEncoder(first, second));
}
