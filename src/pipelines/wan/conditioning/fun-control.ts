import { join32 } from '../../../std/concat-float32.js';
import { imagePositions } from '../../common/image-tower.js';
import { imageFromRgb } from '../../common/rgb-image.js';
import type { RunningJobs } from '../../common/running-jobs.js';
import type { KnownImages, PipelineEvent } from '../../pipeline.js';
import { type VideoSize, videoOfFrames } from '../model/latents.js';
import type { KnownLatents } from './condition-feeds.js';
import type { ConditionNetworks, Frames } from './condition-networks.js';
import { encodeCancellable } from './encode-cancellable.js';

/**
 * Encodes what a Fun-Control model takes: the latents of the control video; the latent of the first frame in its place, with zeros in
 * that of the others; of V1.1 the latent of an image that the video is to look like; and the image encoder's states of that image, or else
 * of the first frame. What is not given is zeros, the states too. In a video of one latent the first frame is seen by the image encoder alone.
 *
 * https://github.com/aigc-apps/VideoX-Fun/blob/804a4258e2608f855ccaec8fffa279e75a3b89c6/videox_fun/pipeline/pipeline_wan_fun_control.py#L633
 *
 * @param video in pixels
 * @param given `start` and `look`: row-major uint8 [height, width, 3]; `followed`: frames of the control video
 * @returns undefined when the job ended meanwhile
 */
export async function* encodeFunControl(
  job: number,
  running: RunningJobs,
  networks: ConditionNetworks,
  video: VideoSize,
  { start, look, followed }: Pick<KnownImages, 'start' | 'look'> & { readonly followed: (() => Frames) | undefined },
): AsyncGenerator<PipelineEvent, KnownLatents | undefined, undefined> {
  const { z_dim } = networks.config.vae;
  const { frames, height, width } = networks.autoencoder.latentSize(video);
  const nothing = new Float32Array(z_dim * height * width);
  const blank: readonly Float32Array[] = Array.from({ length: frames }, () => nothing);
  const control = followed === undefined ? blank : yield* encodeCancellable(job, running, networks, followed(), video);
  if (control === undefined) return undefined;
  const encodeImage = (rgb: Uint8Array) => encodeCancellable(job, running, networks, [imageFromRgb(rgb, video)], video);
  const first = start !== undefined && frames > 1 ? yield* encodeImage(start) : [];
  if (first === undefined) return undefined;
  const reference = look === undefined ? [] : yield* encodeImage(look);
  if (reference === undefined) return undefined;
  const seen = look ?? start;
  return {
    kind: 'image',
    channels: videoOfFrames(
      control.map((latent, i) => join32([latent, first[i] ?? nothing])),
      2 * z_dim,
    ),
    images: seen === undefined ? unseen(networks) : await networks.imageEncoder?.encode([seen], video),
    reference: reference[0],
  };
}

/** The image encoder's states without an image, [I, image_dim]. */
function unseen({ config: { imageEncoder } }: ConditionNetworks): Float32Array | undefined {
  return imageEncoder && new Float32Array(imagePositions(imageEncoder) * imageEncoder.hidden_size);
}
