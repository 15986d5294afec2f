import type { WanConfig } from '../model/config.js';
import type { VideoSize } from '../model/latents.js';
import type { ImageEncoder } from './image-encoder.js';

/** The networks that known frames go through. */
export interface ConditionNetworks {
  readonly config: WanConfig;
  readonly autoencoder: VideoEncoder;
  /** Undefined for a model that takes no images. */
  readonly imageEncoder: ImageEncoder | undefined;
}

/** The encoding half of the autoencoder. */
export interface VideoEncoder {
  /** Means of the latents, [16, h, w] each, one latent at a time. */
  encodeChunks(
    frames: Iterable<Float32Array>,
    size: Omit<VideoSize, 'frames'>,
    signal?: AbortSignal,
  ): AsyncGenerator<Float32Array>;
  /** Latents as the transformer takes them, [16, F, h, w]. */
  encodeLatents(
    frames: Iterable<Float32Array>,
    size: Omit<VideoSize, 'frames'>,
    signal?: AbortSignal,
  ): Promise<Float32Array>;
}
