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

/** Planar float32 frames [3, height, width] of a video, -1 to 1, in order. */
export type Frames = Iterable<Float32Array> | AsyncIterable<Float32Array>;

/** The encoding half of the autoencoder. */
export interface VideoEncoder {
  /** Size of a video in latents. @param video in pixels */
  latentSize(video: VideoSize): VideoSize;
  /** Means of the latents, [16, h, w] each, one latent at a time. */
  encodeChunks(frames: Frames, size: Omit<VideoSize, 'frames'>, signal?: AbortSignal): AsyncGenerator<Float32Array>;
  /** Latents as the transformer takes them, [16, F, h, w]. */
  encodeLatents(frames: Frames, size: Omit<VideoSize, 'frames'>, signal?: AbortSignal): Promise<Float32Array>;
}
