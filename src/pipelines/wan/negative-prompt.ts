import type { FrameConditioning } from '../pipeline.js';

/**
 * The negative prompt that WAN was published with: among others garish colours, overexposure, stills, subtitles, bad hands and
 * faces.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/configs/shared_config.py#L19
 */
const PUBLISHED =
  '色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走';

/**
 * Image-to-video was published with more: no shaking camera; between two frames no cut either. Fun-Control, which needs no frame, was
 * published with text-to-video's.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/configs/wan_i2v_14B.py#L11
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/configs/__init__.py#L18
 * https://github.com/aigc-apps/VideoX-Fun/blob/804a4258e2608f855ccaec8fffa279e75a3b89c6/examples/wan2.1_fun/predict_v2v_control.py#L120
 */
export function wanNegativePrompt(_prompt: string, frames?: FrameConditioning): string {
  if (frames?.method !== 'image_conditioning' || frames.needs.length === 0) return PUBLISHED;
  return `${frames.needs.includes('end') ? '镜头切换，' : ''}镜头晃动，${PUBLISHED}`;
}
