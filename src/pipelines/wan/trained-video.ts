import type { TransformerConfig } from './model/config.js';
import { variantOf } from './model/variant.js';

/** Size in pixels, length in frames and rate in frames per second of a video. */
export interface TrainedVideo {
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly fps: number;
}

const WAN_2_1: TrainedVideo = { width: 832, height: 480, frames: 81, fps: 16 };
const WAN_2_2: TrainedVideo = { width: 1280, height: 704, frames: 121, fps: 24 };

/**
 * The video that a model was trained on, which a request gets that names no size and no length.
 * https://github.com/Wan-Video/Wan2.2/blob/42bf4cfaa384bc21833865abc2f9e6c0e67233dc/wan/configs/wan_ti2v_5B.py
 */
export function trainedVideo(transformer: TransformerConfig): TrainedVideo {
  return variantOf(transformer) === 'text_image_to_video' ? WAN_2_2 : WAN_2_1;
}
