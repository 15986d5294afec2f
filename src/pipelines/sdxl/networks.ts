import { isFusedAttentionRight } from '../../graph/attention-probe.js';
import { dialectFor } from '../../graph/dialect.js';
import { createSession, type NetworkSession, outputOf } from '../../graph/session.js';
import { join32 } from '../join32.js';
import type { Device, ModelInfo } from '../pipeline.js';
import { timestepEmbedding } from '../timestep-embedding.js';
import { openSdxlCheckpoint, type SdxlSource } from './checkpoint.js';
import type { SdxlConfig } from './config.js';
import { describeSdxl, vaeScale } from './inspect.js';
import { type LoraSource, loraUpdates, readLora } from './lora.js';
import { PromptEncoder } from './prompt-encoder.js';
import { buildSdxlNetworks, type NetworkName } from './weights.js';

export interface SdxlOptions extends SdxlSource {
  readonly device: Exclude<Device, 'auto'>;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
  /** On top of the checkpoint, folded into its weights. Omitted: none. */
  readonly loras?: readonly LoraSource[] | undefined;
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
  openEncoder(): Promise<NetworkSession>;
}

/** The networks of one checkpoint, loaded: tensors in, tensors out. */
export class SdxlNetworks {
  readonly config: SdxlConfig;
  readonly info: ModelInfo;
  readonly prompts: PromptEncoder;
  readonly #sessions: Sessions;
  #encoder: Promise<NetworkSession> | undefined;

  constructor(config: SdxlConfig, info: ModelInfo, prompts: PromptEncoder, sessions: Sessions) {
    this.config = config;
    this.info = info;
    this.prompts = prompts;
    this.#sessions = sessions;
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
    const outputs = await this.#sessions.unet.run({
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
    return outputOf(await this.#sessions.decoder.run(feeds), 'image', 'the VAE decoder');
  }

  /** An image, planar float32 [3, 8h, 8w] of -1 to 1, to the mean and log variance of its latents, unscaled, [4, h, w] each. */
  async encode(image: Float32Array, size: ImageSize): Promise<{ mean: Float32Array; logVariance: Float32Array }> {
    this.#encoder ??= this.#sessions.openEncoder();
    const shape = [1, this.config.vae.in_channels, size.height, size.width];
    const outputs = await (await this.#encoder).run({ image: { data: image, shape } });
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

  async release(): Promise<void> {
    const { unet, decoder } = this.#sessions;
    for (const session of [this.prompts, unet, decoder, await this.#encoder]) await session?.release();
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
export async function loadSdxlNetworks({ device, threads, loras = [], ...source }: SdxlOptions): Promise<SdxlNetworks> {
  const checkpoint = await openSdxlCheckpoint(source);
  const { config } = checkpoint;
  const attentionIsRight = device === 'webgpu' && (await isFusedAttentionRight(device));
  const files = await Promise.all(loras.map(async (lora) => ({ ...lora, file: await readLora(lora.path, config) })));
  const networks = await buildSdxlNetworks(checkpoint, dialectFor(device, attentionIsRight), (component) =>
    loraUpdates(files, component),
  );
  const [tokenizer, tokenizer2] = await checkpoint.readTokenizers();
  const open = (name: NetworkName) => createSession(networks[name].graph, { device, threads });
  const prompts = new PromptEncoder(
    { tokenizer, session: await open('text_encoder'), config: config.textEncoder },
    { tokenizer: tokenizer2, session: await open('text_encoder_2'), config: config.textEncoder2 },
  );
  return new SdxlNetworks(config, describeSdxl(checkpoint, networks), prompts, {
    unet: await open('unet'),
    decoder: await open('vae_decoder'),
    openEncoder: () => open('vae_encoder'),
  });
}
