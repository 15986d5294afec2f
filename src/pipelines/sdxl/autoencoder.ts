import { type NetworkSession, outputOf } from '../../runtime/session.js';
import type { OnDemandSession, SessionGroup } from '../../runtime/session-group.js';
import type { VaeConfig } from './model/config.js';
import { vaeScale } from './model/vae.js';
import type { SdxlGraphs } from './weights.js';

export interface ImageSize {
  /** In pixels, or in latents where it says so. */
  readonly width: number;
  readonly height: number;
}

/** The VAE, loaded: the decoder at once, the encoder with the first reference, which many servers never see. */
export class Autoencoder {
  readonly #decoder: NetworkSession;
  readonly #openEncoder: OnDemandSession;
  readonly #config: VaeConfig;

  private constructor(decoder: NetworkSession, openEncoder: OnDemandSession, config: VaeConfig) {
    this.#decoder = decoder;
    this.#openEncoder = openEncoder;
    this.#config = config;
  }

  static async open(
    { vae_decoder, vae_encoder }: SdxlGraphs,
    sessions: SessionGroup,
    config: VaeConfig,
  ): Promise<Autoencoder> {
    return new Autoencoder(await sessions.open(vae_decoder.graph), sessions.onDemand(vae_encoder.graph), config);
  }

  /** Latents [1, 4, h, w] to an image, planar float32 [3, 8h, 8w], about -1 to 1. */
  async decode(latents: Float32Array, size: ImageSize, signal?: AbortSignal): Promise<Float32Array> {
    const { width, height } = this.latentSize(size);
    const scaled = latents.map((value, i) => {
      const { mean, deviation } = this.#statistics(Math.floor(i / (width * height)));
      return value * deviation + mean;
    });
    const feeds = { latents: { data: scaled, shape: [1, this.#config.latent_channels, height, width] } };
    return outputOf(await this.#decoder.run(feeds, { signal }), 'image', 'the VAE decoder');
  }

  /** An image, planar float32 [3, 8h, 8w] of -1 to 1, to the mean and log variance of its latents, unscaled, [4, h, w] each. */
  async encode(
    image: Float32Array,
    size: ImageSize,
    signal?: AbortSignal,
  ): Promise<{ mean: Float32Array; logVariance: Float32Array }> {
    const shape = [1, this.#config.in_channels, size.height, size.width];
    const encoder = await this.#openEncoder();
    const outputs = await encoder.run({ image: { data: image, shape } }, { signal });
    const moments = outputOf(outputs, 'moments', 'the VAE encoder');
    const mean = moments.slice(0, moments.length / 2);
    // Bounds: https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/autoencoders/vae.py#L767
    return { mean, logVariance: moments.slice(mean.length).map((value) => Math.min(Math.max(value, -30), 20)) };
  }

  /** Scaled latents [1, 4, h, w] of an image: the mode of the posterior, so that an image always has the same latents. */
  async encodeLatents(image: Float32Array, size: ImageSize, signal?: AbortSignal): Promise<Float32Array> {
    const { mean } = await this.encode(image, size, signal);
    const { width, height } = this.latentSize(size);
    return mean.map((value, i) => {
      const statistics = this.#statistics(Math.floor(i / (width * height)));
      return (value - statistics.mean) / statistics.deviation;
    });
  }

  /** The size of an image in pixels, in latents. */
  latentSize({ width, height }: ImageSize): ImageSize {
    const side = vaeScale(this.#config);
    return { width: width / side, height: height / side };
  }

  /** Factor and offset that are applied to one channel of the latents before it is decoded. */
  #statistics(channel: number): { mean: number; deviation: number } {
    const { scaling_factor, shift_factor, latents_mean, latents_std } = this.#config;
    return {
      mean: latents_mean?.[channel] ?? shift_factor ?? 0,
      deviation: (latents_std?.[channel] ?? 1) / scaling_factor,
    };
  }
}
