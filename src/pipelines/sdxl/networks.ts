import type { Backend } from '../../runtime/backend.js';
import { createSession, type NetworkSession, outputOf } from '../../runtime/session.js';
import { join32 } from '../../std/concat-float32.js';
import { timestepEmbedding } from '../common/timestep-embedding.js';
import { type LoraSource, loraUpdates, readLora } from '../lora/read-lora.js';
import type { ModelInfo } from '../pipeline.js';
import { openSdxlCheckpoint, type SdxlSource } from './checkpoint/checkpoint.js';
import { describeSdxl, vaeScale } from './inspect.js';
import { sdxlLoraNames } from './lora-names.js';
import type { SdxlConfig } from './model/config.js';
import { PromptEncoder } from './prompt/prompt-encoder.js';
import { buildSdxlNetworks, type NetworkName, type Networks } from './weights.js';

export interface SdxlOptions extends SdxlSource {
  readonly backend: Backend;
}

export interface ImageSize {
  /** In pixels, or in latents where it says so. */
  readonly width: number;
  readonly height: number;
}

export interface UNetCall {
  /** [B, 4, height, width] */
  readonly latents: Float32Array;
  /** In latents. */
  readonly height: number;
  readonly width: number;
  readonly timestep: number;
  /** [B, T, X] */
  readonly context: Float32Array;
  /** [B, P] */
  readonly pooled: Float32Array;
  /** B rows of six. */
  readonly timeIds: readonly (readonly number[])[];
}

interface Sessions {
  readonly unet: NetworkSession;
  readonly decoder: NetworkSession;
  /** Many servers never see a reference: this one is opened with the first. */
  readonly encoder: LateSession;
}

/** Weights are computed with in float32, whatever they are stored as. */
const FLOAT32_BYTES = 4;

/** Opened when it is asked for the first time. */
class LateSession {
  readonly #open: () => Promise<NetworkSession>;
  #session: Promise<NetworkSession> | undefined;

  constructor(open: () => Promise<NetworkSession>) {
    this.#open = open;
  }

  get(): Promise<NetworkSession> {
    this.#session ??= this.#open();
    return this.#session;
  }

  async release(): Promise<void> {
    await (await this.#session)?.release();
  }
}

/** Builds the same model with LoRAs folded into it. */
type BuildVariant = (base: SdxlNetworks, loras: readonly LoraSource[]) => Promise<SdxlNetworks>;

/** The networks of one checkpoint, loaded: tensors in, tensors out. */
export class SdxlNetworks {
  readonly config: SdxlConfig;
  readonly info: ModelInfo;
  readonly backend: Backend;
  readonly prompts: PromptEncoder;
  /** A variant has those of its base that it does not change. */
  readonly sessions: Sessions;
  /** What it releases: a variant leaves its base's alone. */
  readonly #owned: readonly { release(): Promise<void> }[];
  readonly #buildVariant: BuildVariant;
  /** What a variant holds at most, in float32: a UNet and both text encoders. */
  readonly variantBytes: number;

  constructor(
    {
      config,
      info,
      backend,
      prompts,
      variantBytes,
    }: Pick<SdxlNetworks, 'config' | 'info' | 'backend' | 'prompts' | 'variantBytes'>,
    sessions: Sessions,
    owned: readonly { release(): Promise<void> }[],
    buildVariant: BuildVariant,
  ) {
    this.config = config;
    this.info = info;
    this.backend = backend;
    this.prompts = prompts;
    this.sessions = sessions;
    this.#owned = owned;
    this.variantBytes = variantBytes;
    this.#buildVariant = buildVariant;
  }

  /** One run of the UNet over a batch. -> [B, 4, height, width] */
  async predictNoise(call: UNetCall): Promise<Float32Array> {
    const { unet } = this.config;
    const batch = call.timeIds.length;
    const options = { flipSinToCos: unet.flip_sin_to_cos, freqShift: unet.freq_shift };
    const [channels = 0] = unet.block_out_channels;
    const timestep = timestepEmbedding(call.timestep, channels, options);
    const sizes = call.timeIds.flatMap((ids) =>
      ids.map((id) => timestepEmbedding(id, unet.addition_time_embed_dim, options)),
    );
    const width = unet.cross_attention_dim;
    const outputs = await this.sessions.unet.run({
      latents: { data: call.latents, shape: [batch, unet.in_channels, call.height, call.width] },
      timestep: { data: join32(new Array<Float32Array>(batch).fill(timestep)), shape: [batch, channels] },
      sizes: { data: join32(sizes), shape: [batch, 6 * unet.addition_time_embed_dim] },
      context: { data: call.context, shape: [batch, call.context.length / batch / width, width] },
      pooled: { data: call.pooled, shape: [batch, call.pooled.length / batch] },
    });
    return outputOf(outputs, 'noise', 'the UNet');
  }

  /** Latents [1, 4, h, w] to an image, planar float32 [3, 8h, 8w], about -1 to 1. */
  async decode(latents: Float32Array, size: ImageSize): Promise<Float32Array> {
    const { width, height } = this.latentSize(size);
    const { latent_channels: channels } = this.config.vae;
    const scaled = latents.map((value, i) => {
      const { mean, deviation } = this.#statistics(Math.floor(i / (width * height)));
      return value * deviation + mean;
    });
    const feeds = { latents: { data: scaled, shape: [1, channels, height, width] } };
    return outputOf(await this.sessions.decoder.run(feeds), 'image', 'the VAE decoder');
  }

  /** An image, planar float32 [3, 8h, 8w] of -1 to 1, to the mean and log variance of its latents, unscaled, [4, h, w] each. */
  async encode(image: Float32Array, size: ImageSize): Promise<{ mean: Float32Array; logVariance: Float32Array }> {
    const shape = [1, this.config.vae.in_channels, size.height, size.width];
    const outputs = await (await this.sessions.encoder.get()).run({ image: { data: image, shape } });
    const both = outputOf(outputs, 'moments', 'the VAE encoder');
    const mean = both.slice(0, both.length / 2);
    // Bounds: https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/autoencoders/vae.py#L767
    return { mean, logVariance: both.slice(mean.length).map((value) => Math.min(Math.max(value, -30), 20)) };
  }

  /** Scaled latents [1, 4, h, w] of an image: the mode of the posterior, so that an image always has the same. */
  async encodeLatents(image: Float32Array, size: ImageSize): Promise<Float32Array> {
    const { mean } = await this.encode(image, size);
    const { width, height } = this.latentSize(size);
    return mean.map((value, i) => {
      const statistics = this.#statistics(Math.floor(i / (width * height)));
      return (value - statistics.mean) / statistics.deviation;
    });
  }

  /** Of an image in pixels, in latents. */
  latentSize({ width, height }: ImageSize): ImageSize {
    const side = vaeScale(this.config);
    return { width: width / side, height: height / side };
  }

  /**
   * The same model with LoRAs folded into its weights: a UNet of its own, and text encoders where these are changed; what is not
   * changed is shared, and goes with the base.
   * @throws InferenceError of a LoRA that cannot be read or does not fit
   */
  withLoras(loras: readonly LoraSource[]): Promise<SdxlNetworks> {
    return this.#buildVariant(this, loras);
  }

  async release(): Promise<void> {
    for (const each of this.#owned) await each.release();
  }

  /** What one channel of the latents is multiplied by, and moved by, before it is decoded. */
  #statistics(channel: number): { mean: number; deviation: number } {
    const { scaling_factor, shift_factor, latents_mean, latents_std } = this.config.vae;
    return {
      mean: latents_mean?.[channel] ?? shift_factor ?? 0,
      deviation: (latents_std?.[channel] ?? 1) / scaling_factor,
    };
  }
}

/** Loads a checkpoint: sessions are built here, once, for every size and batch. */
export async function loadSdxlNetworks({ backend, ...source }: SdxlOptions): Promise<SdxlNetworks> {
  const checkpoint = await openSdxlCheckpoint(source);
  const { config } = checkpoint;
  const { dialect } = backend;
  const [tokenizer, tokenizer2] = await checkpoint.readTokenizers();
  const encoderOf = (first: NetworkSession, second: NetworkSession) =>
    new PromptEncoder(
      { tokenizer, session: first, config: config.textEncoder },
      { tokenizer: tokenizer2, session: second, config: config.textEncoder2 },
    );
  const opener = (networks: Networks) => (name: NetworkName) => createSession(networks[name].graph, backend);

  const buildVariant: BuildVariant = async (base, loras) => {
    const names = sdxlLoraNames(config);
    const files = await Promise.all(loras.map(async (lora) => ({ ...lora, file: await readLora(lora.path, names) })));
    const updatesOf = (component: string) => loraUpdates(files, component, component !== 'unet');
    const open = opener(await buildSdxlNetworks(checkpoint, dialect, updatesOf));
    const owned: NetworkSession[] = [];
    const own = async (name: NetworkName) => {
      const session = await open(name);
      owned.push(session);
      return session;
    };
    try {
      const unet = await own('unet');
      const changesText = ['text_encoder', 'text_encoder_2'].some((component) => updatesOf(component).size > 0);
      const prompts = changesText ? encoderOf(await own('text_encoder'), await own('text_encoder_2')) : base.prompts;
      const { info, variantBytes } = base;
      return new SdxlNetworks(
        { config, info, backend, prompts, variantBytes },
        { ...base.sessions, unet },
        owned,
        buildVariant,
      );
    } catch (error) {
      // What was opened before memory ran out gives it back.
      for (const session of owned) await session.release();
      throw error;
    }
  };

  const networks = await buildSdxlNetworks(checkpoint, dialect);
  const open = opener(networks);
  const prompts = encoderOf(await open('text_encoder'), await open('text_encoder_2'));
  const sessions = {
    unet: await open('unet'),
    decoder: await open('vae_decoder'),
    encoder: new LateSession(() => open('vae_encoder')),
  };
  const info = describeSdxl(checkpoint, networks);
  const owned = [prompts, ...Object.values(sessions)];
  const variantBytes = FLOAT32_BYTES * variantParameters(networks);
  return new SdxlNetworks({ config, info, backend, prompts, variantBytes }, sessions, owned, buildVariant);
}

function variantParameters({ unet, text_encoder, text_encoder_2 }: Networks): number {
  return [unet, text_encoder, text_encoder_2].reduce((sum, { weights }) => sum + weights.parameters, 0);
}
