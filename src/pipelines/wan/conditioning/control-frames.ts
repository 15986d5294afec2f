import { decodeControlVideo } from '../../../media/control-video.js';
import { imageFromRgb } from '../../common/rgb-image.js';
import type { RequestControlVideo } from '../../pipeline.js';
import type { VideoSize } from '../model/latents.js';

/**
 * The frames of a control video, planar float32 [3, height, width] of -1 to 1, as many as the video has. ffmpeg decodes them while they
 * are taken: 81 frames of 832x480 together would be 390 MB.
 *
 * @param video in pixels
 * @throws InferenceError REFERENCE_INVALID
 */
export async function* controlFrames(
  { file, ffmpeg, fps }: RequestControlVideo,
  video: VideoSize,
  signal: AbortSignal,
): AsyncGenerator<Float32Array, void, undefined> {
  for await (const rgb of decodeControlVideo(ffmpeg, file, { ...video, fps }, signal)) yield imageFromRgb(rgb, video);
}
