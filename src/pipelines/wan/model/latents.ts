/** Latents between the transformer, which takes a video [16, F, h, w] of mean 0 and deviation 1, and the VAE's frames. */
import { join32 } from '../../../std/concat-float32.js';
import type { VaeConfig } from './config.js';

/** The size of one video, in pixels, or in latents where it says so. */
export interface VideoSize {
  readonly frames: number;
  readonly height: number;
  readonly width: number;
}

/** One frame [16, h, w] of a video's latents, as the VAE takes it: deviation and mean of each channel put back. */
export function latentFrame(latents: Float32Array, frame: number, frames: number, vae: VaeConfig): Float32Array {
  const plane = latents.length / vae.z_dim / frames;
  return Float32Array.from({ length: vae.z_dim * plane }, (_, i) => {
    const channel = Math.floor(i / plane);
    const value = latents[(channel * frames + frame) * plane + (i % plane)] ?? 0;
    return value * (vae.latents_std[channel] ?? 1) + (vae.latents_mean[channel] ?? 0);
  });
}

/** Frames [C, h, w] to one video [C, F, h, w]. */
export function videoOfFrames(frames: readonly Float32Array[], channels: number): Float32Array {
  const video = new Float32Array(frames.reduce((length, frame) => length + frame.length, 0));
  const plane = video.length / channels / frames.length;
  for (const [f, frame] of frames.entries()) {
    for (let channel = 0; channel < channels; channel += 1) {
      const at = (channel * frames.length + f) * plane;
      video.set(frame.subarray(channel * plane, (channel + 1) * plane), at);
    }
  }
  return video;
}

/** A video's latents as the VAE gives them, as the transformer takes them. */
export function normalizedLatents(latents: Float32Array, vae: VaeConfig): Float32Array {
  const plane = latents.length / vae.z_dim;
  return latents.map((value, i) => {
    const channel = Math.floor(i / plane);
    return (value - (vae.latents_mean[channel] ?? 0)) / (vae.latents_std[channel] ?? 1);
  });
}

/** A video [C, F, h, w] without its first frames. */
export function withoutLeading(video: Float32Array, leading: number, frames: number, channels: number): Float32Array {
  if (leading === 0) return video;
  const plane = video.length / channels / frames;
  return join32(
    Array.from({ length: channels }, (_, channel) =>
      video.subarray((channel * frames + leading) * plane, (channel + 1) * frames * plane),
    ),
  );
}
