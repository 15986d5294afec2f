import { type NetworkSession, outputOf } from '../../runtime/session.js';
import type { MemoryRelief } from '../common/memory-relief.js';
import { isTooNarrow } from '../common/not-finite.js';
import type { OnDemandSession, SessionGroup } from '../common/session-group.js';
import { cutTile, TileBlend, TileLayout, tileSides } from '../common/tiles.js';
import type { VaeConfig } from './model/config.js';
import { vaeScale } from './model/vae.js';
import type { SdxlGraphs } from './weights.js';

export interface ImageSize {
  /** In pixels, or in latents where it says so. */
  readonly width: number;
  readonly height: number;
}

type Rect = [x: number, y: number, width: number, height: number];

interface Sessions {
  readonly decoder: NetworkSession;
  /** In float32; undefined where the decoder is. */
  readonly openWideDecoder: OnDemandSession | undefined;
  readonly openEncoder: OnDemandSession;
  readonly relief: MemoryRelief;
}

/** The VAE, loaded: the decoder at once, the encoder with the first reference, which many servers never see. */
export class Autoencoder {
  readonly #sessions: Sessions;
  readonly #config: VaeConfig;

  private constructor(sessions: Sessions, config: VaeConfig) {
    this.#sessions = sessions;
    this.#config = config;
  }

  static async open(
    { vae_decoder, vae_encoder }: SdxlGraphs,
    sessions: SessionGroup,
    config: VaeConfig,
  ): Promise<Autoencoder> {
    return new Autoencoder(
      {
        decoder: await sessions.open(vae_decoder),
        openWideDecoder: sessions.wideOnDemand(vae_decoder),
        openEncoder: sessions.onDemand(vae_encoder),
        relief: sessions.relief,
      },
      config,
    );
  }

  /**
   * Latents [1, 4, h, w] to an image, planar float32 [3, 8h, 8w], about -1 to 1. Where half precision is too narrow for it, it is
   * decoded once more in float32. Where memory runs out, it is decoded in tiles, and where it still does, in smaller ones.
   */
  decode(latents: Float32Array, size: ImageSize, signal?: AbortSignal): Promise<Float32Array> {
    const scale = vaeScale(this.#config);
    const tiled = tileSides(this.latentSize(size)).map((side) => ({
      measure: `decoded_in_tiles_of_${side * scale}_pixels`,
      run: () => this.decodeInTiles(latents, size, side, signal),
    }));
    const work = `decode ${size.width}x${size.height}`;
    return this.#sessions.relief.shrink(work, [{ run: () => this.decodeWhole(latents, size, signal) }, ...tiled]);
  }

  /** The same in overlapping tiles. @param side of a tile, in latents */
  async decodeInTiles(
    latents: Float32Array,
    size: ImageSize,
    side: number,
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    const whole = this.latentSize(size);
    const scale = vaeScale(this.#config);
    const layout = new TileLayout(size, scale, side);
    const blend = new TileBlend(layout);
    for (const tile of layout.tiles) {
      const tileSize = { width: tile.width * scale, height: tile.height * scale };
      blend.add(tile, await this.decodeWhole(cutTile(latents, whole, tile), tileSize, signal));
    }
    return blend.image();
  }

  /** The same in one run, whatever memory it takes. */
  async decodeWhole(latents: Float32Array, size: ImageSize, signal?: AbortSignal): Promise<Float32Array> {
    const { width, height } = this.latentSize(size);
    const scaled = new Float32Array(latents.length);
    for (let channel = 0, i = 0; i < scaled.length; channel += 1) {
      const { mean, deviation } = this.#statistics(channel);
      for (const end = i + width * height; i < end; i += 1) scaled[i] = (latents[i] ?? 0) * deviation + mean;
    }
    const feeds = { latents: { data: scaled, shape: [1, this.#config.latent_channels, height, width] } };
    const { decoder, openWideDecoder } = this.#sessions;
    const outputs = await decoder.run(feeds, { signal }).catch(async (error: unknown) => {
      if (!isTooNarrow(error) || openWideDecoder === undefined) throw error;
      return (await openWideDecoder()).run(feeds, { signal });
    });
    return outputOf(outputs, 'image', 'the VAE decoder');
  }

  /** An image, planar float32 [3, 8h, 8w] of -1 to 1, to the mean and log variance of its latents, unscaled, [4, h, w] each. */
  async encode(
    image: Float32Array,
    size: ImageSize,
    signal?: AbortSignal,
  ): Promise<{ mean: Float32Array; logVariance: Float32Array }> {
    const shape = [1, this.#config.in_channels, size.height, size.width];
    const encoder = await this.#sessions.openEncoder();
    const outputs = await encoder.run({ image: { data: image, shape } }, { signal });
    const moments = outputOf(outputs, 'moments', 'the VAE encoder');
    const mean = moments.slice(0, moments.length / 2);
    // Bounds: https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/models/autoencoders/vae.py#L767
    return { mean, logVariance: moments.slice(mean.length).map((value) => Math.min(Math.max(value, -30), 20)) };
  }

  /**
   * Scaled latents [1, 4, h, w] of an image: the mode of the posterior, so that an image always has the same latents. Where memory
   * runs out, it is encoded in tiles, and where it still does, in smaller ones.
   */
  async encodeLatents(image: Float32Array, size: ImageSize, signal?: AbortSignal): Promise<Float32Array> {
    const { width, height } = this.latentSize(size);
    const scale = vaeScale(this.#config);
    const tiled = tileSides({ width, height }).map((side) => ({
      measure: `encoded_in_tiles_of_${side * scale}_pixels`,
      run: () => this.encodeInTiles(image, size, side, signal),
    }));
    const whole = { run: async () => (await this.encode(image, size, signal)).mean };
    const mean = await this.#sessions.relief.shrink(`encode ${size.width}x${size.height}`, [whole, ...tiled]);
    const normal = new Float32Array(mean.length);
    for (let channel = 0, i = 0; i < normal.length; channel += 1) {
      const statistics = this.#statistics(channel);
      for (const end = i + width * height; i < end; i += 1)
        normal[i] = ((mean[i] ?? 0) - statistics.mean) / statistics.deviation;
    }
    return normal;
  }

  /** The mean of the latents, unscaled, [4, h, w], in overlapping tiles. @param side of a tile, in latents */
  async encodeInTiles(image: Float32Array, size: ImageSize, side: number, signal?: AbortSignal): Promise<Float32Array> {
    const scale = vaeScale(this.#config);
    const layout = new TileLayout(this.latentSize(size), 1, side);
    const blend = new TileBlend(layout, this.#config.latent_channels);
    for (const tile of layout.tiles) {
      const [x, y, width, height] = [tile.x, tile.y, tile.width, tile.height].map((length) => length * scale) as Rect;
      const part = cutTile(image, size, { x, y, width, height });
      blend.add(tile, (await this.encode(part, { width, height }, signal)).mean);
    }
    return blend.image();
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
