import { imageFromRgb } from '../../common/rgb-image.js';
import type { GenerationRequest, KnownImages } from '../../pipeline.js';
import type { VideoSize } from '../model/latents.js';
import type { VideoEncoder } from './condition-networks.js';

interface VideoNoise {
  /** The video's own initial noise, [C, F, h, w]. */
  readonly noise: Float32Array;
  /** Size of the video in latents. */
  readonly size: VideoSize;
  readonly channels: number;
}

/** One frame of latents, [C, h, w], and where it belongs. */
interface HeldLatent {
  readonly frame: number;
  readonly latents: Float32Array;
}

/**
 * Known frames as latents that are held while the rest of the video is denoised: a text-to-video model was not trained to
 * continue an image, but it makes neighbours of a frame that agree with it.
 *
 * The first latent of a video is one frame and is encoded alone. Every later one is four frames, so a last frame is held by the
 * latent of four like it: what the VAE makes of a video that stands still.
 *
 * A model of `clean_frames` was trained to continue a first frame: it is held without noise, to the end.
 */
export class HeldLatents {
  readonly #held: readonly HeldLatent[];
  readonly #known: Pick<KnownImages, 'method' | 'strength'>;
  readonly #video: VideoNoise;

  private constructor(held: readonly HeldLatent[], known: Pick<KnownImages, 'method' | 'strength'>, video: VideoNoise) {
    this.#held = held;
    this.#known = known;
    this.#video = video;
  }

  static async encode(
    autoencoder: VideoEncoder,
    { start, end, method, strength }: KnownImages,
    request: Pick<GenerationRequest, 'width' | 'height'>,
    video: VideoNoise,
    signal?: AbortSignal,
  ): Promise<HeldLatents> {
    const held: HeldLatent[] = [];
    if (start !== undefined) {
      held.push({
        frame: 0,
        latents: await autoencoder.encodeLatents([imageFromRgb(start, request)], request, signal),
      });
    }
    const last = video.size.frames - 1;
    if (end !== undefined && last > 0) {
      const frame = imageFromRgb(end, request);
      const still = await autoencoder.encodeLatents([frame, frame, frame, frame, frame], request, signal);
      held.push({ frame: last, latents: frameOf(still, 1, 2, video.channels) });
    }
    return new HeldLatents(held, { method, strength }, video);
  }

  /** True if they are still held after `done` steps. */
  holds(done: number, steps: number): boolean {
    return this.#isClean || done <= Math.round(this.#known.strength * steps);
  }

  /** The video with them in their places, at a noise level: (1 - sigma) x0 + sigma noise. */
  putBack(latents: Float32Array, level: number): Float32Array {
    const sigma = this.#isClean ? 0 : level;
    const { noise, size, channels } = this.#video;
    const plane = size.height * size.width;
    const video = latents.slice();
    for (const { frame, latents: clean } of this.#held) {
      for (let channel = 0; channel < channels; channel += 1) {
        const from = channel * plane;
        const to = (channel * size.frames + frame) * plane;
        for (let i = 0; i < plane; i += 1) {
          video[to + i] = (1 - sigma) * (clean[from + i] ?? 0) + sigma * (noise[to + i] ?? 0);
        }
      }
    }
    return video;
  }

  get #isClean(): boolean {
    return this.#known.method === 'clean_frames';
  }
}

/** One frame [C, h, w] of latents [C, F, h, w]. */
function frameOf(latents: Float32Array, frame: number, frames: number, channels: number): Float32Array {
  const plane = latents.length / channels / frames;
  const one = new Float32Array(channels * plane);
  for (let channel = 0; channel < channels; channel += 1) {
    const at = (channel * frames + frame) * plane;
    one.set(latents.subarray(at, at + plane), channel * plane);
  }
  return one;
}
