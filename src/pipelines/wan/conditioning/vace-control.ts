import { join32 } from '../../../std/concat-float32.js';
import { LruMap } from '../../../std/lru-map.js';
import { imageFromRgb } from '../../common/rgb-image.js';
import type { RunningJobs } from '../../common/running-jobs.js';
import type { KnownImages, PipelineEvent } from '../../pipeline.js';
import { type VideoSize, videoOfFrames } from '../model/latents.js';
import { MASK_PIXELS } from '../model/variant.js';
import type { VaceControl } from './condition-feeds.js';
import type { ConditionNetworks, Frames } from './condition-networks.js';
import { encodeCancellable } from './encode-cancellable.js';

/** Value of unknown frames in a video of which some are known: grey, 128 of 255, on the scale of `imageFromRgb`, -1 to 1. */
const GREY = Math.fround(2 * Math.fround(128 / 255)) - 1;

/** Latents of a video of nothing but zeros, [16, h, w] each, by its size. */
export type VaceBlankCache = LruMap<string, readonly Float32Array[]>;

/** Every video that is made of text alone is conditioned on a blank one, and nearly all of those have one size. */
export function createVaceBlankCache(): VaceBlankCache {
  return new LruMap(1);
}

/** A control, and how many latents of it stand before the video's own and are cut off after. */
export interface LeadingControl extends VaceControl {
  readonly leading: number;
}

interface VaceInputs {
  readonly known: Omit<KnownImages, 'method'> | undefined;
  readonly followed: (() => Frames) | undefined;
  readonly scale: number | undefined;
}

/**
 * Encodes known frames as VACE's control: the latents of the known frames (`inactive`) and of those to be made (`reactive`), each
 * with zeros in the place of the others; a mask, the pixels of a latent's patch folded into channels; and in front an image that
 * the video is to look like. Frames to be made are grey, or those of a control video. With neither known frames nor a control video the
 * control is a video of zeros, all of it to be made, at a scale of 1, as in the reference without a video.
 *
 * https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/pipelines/wan/pipeline_wan_vace.py#L514
 *
 * @param blanks for videos of which no frame is known
 * @param video in pixels
 * @param given `followed`: frames of the control video. `scale`: default the strength of the known frames
 * @returns undefined when the job ended meanwhile
 */
export async function* encodeVaceControl(
  job: number,
  running: RunningJobs,
  networks: ConditionNetworks,
  blanks: VaceBlankCache,
  video: VideoSize,
  { known, followed, scale = known?.strength ?? 1 }: VaceInputs,
): AsyncGenerator<PipelineEvent, LeadingControl | undefined, undefined> {
  const { width, height, frames } = video;
  const image = (rgb: Uint8Array | undefined) => rgb && imageFromRgb(rgb, video);
  const [start, end, look] = [image(known?.start), image(known?.end), image(known?.look)];
  const at = (frame: number) => (frame === 0 ? start : frame === frames - 1 ? end : undefined);
  const zeros = new Float32Array(3 * width * height);
  const encoded = (images: Frames) => encodeCancellable(job, running, networks, images, { width, height });

  const blankKey = `${frames} ${height} ${width}`;
  const isBlank = start === undefined && end === undefined;
  const kept = isBlank ? blanks.get(blankKey) : undefined;
  const inactive = kept ?? (yield* encoded(eachFrame(frames, (frame) => at(frame) ?? zeros)));
  if (inactive === undefined) return undefined;
  if (isBlank) blanks.set(blankKey, inactive);
  const isMade = (frame: number) => at(frame) === undefined;
  const grey = zeros.map(() => GREY);
  const asked = followed?.() ?? (known && eachFrame(frames, () => grey));
  const reactive = asked ? yield* encoded(replaced(asked, (frame) => (isMade(frame) ? undefined : zeros))) : inactive;
  if (reactive === undefined) return undefined;
  const leading = look === undefined ? [] : yield* encoded([look]);
  if (leading === undefined) return undefined;

  // [96, h, w] each: what is known, what is to be made, and the mask, one channel for each pixel of a latent's patch
  const mask = foldedMask(frames, inactive.length, isMade);
  const { z_dim } = networks.config.vae;
  const one = (kept: Float32Array, made: Float32Array | undefined, masked = 0) =>
    join32([kept, made ?? kept.map(() => 0), new Float32Array((MASK_PIXELS * kept.length) / z_dim).fill(masked)]);
  const own = inactive.map((latents, i) => one(latents, reactive[i], mask[i]));
  const control = videoOfFrames(
    [...leading.map((latents) => one(latents, undefined)), ...own],
    2 * z_dim + MASK_PIXELS,
  );
  return { kind: 'vace', control, scale, leading: leading.length };
}

/**
 * Folds a mask of frames, 1 where a frame is to be made, into one value for each latent: the mask of the latent's middle frame. No
 * latent's middle frame is the first or last one, so known end frames stay masked as "to be made"; the reference does the same.
 */
function foldedMask(frames: number, latents: number, isMade: (frame: number) => boolean): readonly number[] {
  return Array.from({ length: latents }, (_, i) => (isMade(Math.floor(((i + 0.5) * frames) / latents)) ? 1 : 0));
}

/** Frames with others in some places. */
async function* replaced(
  frames: Frames,
  by: (i: number) => Float32Array | undefined,
): AsyncGenerator<Float32Array, void, undefined> {
  let i = 0;
  for await (const frame of frames) {
    yield by(i) ?? frame;
    i += 1;
  }
}

function* eachFrame(count: number, frame: (i: number) => Float32Array): Generator<Float32Array> {
  for (let i = 0; i < count; i += 1) yield frame(i);
}
