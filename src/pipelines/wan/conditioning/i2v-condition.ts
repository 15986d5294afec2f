import { InferenceError } from '../../../errors.js';
import { join32 } from '../../../std/concat-float32.js';
import { imageFromRgb } from '../../common/rgb-image.js';
import type { RunningJobs } from '../../common/running-jobs.js';
import type { FramePlace, KnownImages, PipelineEvent } from '../../pipeline.js';
import { type VideoSize, videoOfFrames } from '../model/latents.js';
import { frameConditioningOf, MASK_FRAMES } from '../model/variant.js';
import type { KnownLatents } from './condition-feeds.js';
import type { ConditionNetworks } from './condition-networks.js';
import { encodeCancellable } from './encode-cancellable.js';

/**
 * Encodes known frames for an image-to-video model: the latents of a video that has the known frames and is grey in between; for
 * each latent a mask of its known frames; and the image encoder's states of the known frames, where the model takes images. Fun-InP
 * is the same with two known frames, of which the image encoder sees the first.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/pipelines/wan/pipeline_wan_i2v.py#L393
 *
 * @param video in pixels
 * @returns undefined when the job ended meanwhile
 * @throws InferenceError REFERENCE_NEEDED where a frame is missing that the model needs
 */
export async function* encodeKnownLatents(
  job: number,
  running: RunningJobs,
  networks: ConditionNetworks,
  video: VideoSize,
  known: Omit<KnownImages, 'method'> | undefined,
): AsyncGenerator<PipelineEvent, KnownLatents | undefined, undefined> {
  const { width, height, frames } = video;
  const { takes, needs } = frameConditioningOf(networks.config.transformer);
  const missing = needs.filter((place) => known?.[place] === undefined);
  if (missing.length > 0) {
    throw new InferenceError(
      'REFERENCE_NEEDED',
      `the model makes videos of known frames; give a ${missing.join(' and a ')} reference`,
    );
  }
  const given = (place: FramePlace) => (takes.includes(place) ? known?.[place] : undefined);
  const [start, end] = [given('start'), given('end')];
  const places = new Map([...(start ? [[0, start] as const] : []), ...(end ? [[frames - 1, end] as const] : [])]);

  const grey = new Float32Array(3 * width * height);
  const images = Array.from({ length: frames }, (_, i) => places.get(i));
  const latents = yield* encodeCancellable(job, running, networks, planarFrames(images, grey, video), video);
  if (latents === undefined) return undefined;
  // Without places for two images the transformer sees the first frame alone.
  const seen = networks.config.transformer.pos_embed_seq_len == null ? [start] : [start, end];
  // [20, h, w] each: a mask for each frame that a latent stands for, then the latent
  const plane = (latents[0]?.length ?? 0) / networks.config.vae.z_dim;
  const channels = latents.map((latent, i) =>
    join32([...framesOf(i).map((frame) => new Float32Array(plane).fill(places.has(frame) ? 1 : 0)), latent]),
  );
  return {
    kind: 'image',
    channels: videoOfFrames(channels, MASK_FRAMES + networks.config.vae.z_dim),
    images: await networks.imageEncoder?.encode(
      seen.filter((rgb) => rgb !== undefined),
      video,
    ),
  };
}

/** Frames that a latent stands for. The first latent is one frame, listed four times. */
function framesOf(latent: number): readonly number[] {
  return Array.from({ length: MASK_FRAMES }, (_, k) => (latent === 0 ? 0 : 1 + MASK_FRAMES * (latent - 1) + k));
}

function* planarFrames(
  images: readonly (Uint8Array | undefined)[],
  unknown: Float32Array,
  size: { width: number; height: number },
): Generator<Float32Array> {
  for (const rgb of images) yield rgb === undefined ? unknown : imageFromRgb(rgb, size);
}
