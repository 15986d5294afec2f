import { JobType } from '../../gen/darkroom/v1/job.js';
import type { Family, FrameConditioning } from '../../pipelines/pipeline.js';

/** What a job type stands for; every value may be overridden by the request. */
export interface Preset {
  readonly family: Family;
  /** `pictures`: 1, 3 or 6; `picture`: one; `clip`: one. */
  readonly makes: 'pictures' | 'picture' | 'clip';
  /** Whether its prompt is rewritten first. */
  readonly isEnhanced: boolean;
  readonly steps: number;
  readonly guidanceScale: number;
  /**
   * The default; undefined is an absent one, which diffusers treats otherwise than an empty one.
   * @param frames what the model makes of known frames, once that is known
   */
  negativePrompt(prompt: string, frames?: FrameConditioning): string | undefined;
}

const QUALITY = 'blurry, low quality, deformed, watermark, text';
const PEOPLE = 'extra limbs, fused bodies, duplicate people, bad anatomy';
/** Words that say there is more than one person. */
const SEVERAL =
  /\b(people|persons|couples?|groups?|crowds?|famil(y|ies)|friends|men|women|children|kids|boys|girls|both|together|(two|three|four|five|several|many) \w+)\b/i;

/** SDXL's default negative prompt: a short quality list, longer where several people are to be told apart. */
export function sdxlNegativePrompt(prompt: string): string {
  return SEVERAL.test(prompt) ? `${QUALITY}, ${PEOPLE}` : QUALITY;
}

/**
 * What WAN was published with: among others garish colours, overexposure, stills, subtitles, bad hands and faces.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/configs/shared_config.py#L19
 */
const WAN_NEGATIVE =
  '色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走';

/**
 * Image-to-video was published with more: no shaking camera; between two frames no cut either.
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/configs/wan_i2v_14B.py#L11
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/wan/configs/__init__.py#L18
 */
function wanNegativePrompt(_prompt: string, frames?: FrameConditioning): string {
  if (frames?.method !== 'image_conditioning') return WAN_NEGATIVE;
  return `${frames.needs.includes('end') ? '镜头切换，' : ''}镜头晃动，${WAN_NEGATIVE}`;
}

const sdxl = (steps: number, guidanceScale: number): Preset => ({
  family: 'sdxl',
  makes: 'pictures',
  isEnhanced: false,
  steps,
  guidanceScale,
  negativePrompt: sdxlNegativePrompt,
});
const wan = (makes: 'picture' | 'clip', steps: number, guidanceScale: number, isEnhanced = false): Preset => ({
  family: 'wan',
  makes,
  isEnhanced,
  steps,
  guidanceScale,
  negativePrompt: wanNegativePrompt,
});

const presets: Readonly<Record<number, Preset>> = {
  [JobType.JOB_TYPE_SDXL_IMAGE_FAST]: sdxl(15, 6),
  [JobType.JOB_TYPE_SDXL_IMAGE_HIGH]: sdxl(25, 7.5),
  [JobType.JOB_TYPE_IMAGE_FAST]: wan('picture', 25, 6.5),
  [JobType.JOB_TYPE_IMAGE_HIGH]: wan('picture', 50, 7.5),
  [JobType.JOB_TYPE_VIDEO_FAST]: wan('clip', 25, 6.5),
  [JobType.JOB_TYPE_VIDEO_HIGH]: wan('clip', 50, 7.5),
  [JobType.JOB_TYPE_IMAGE7B_FAST_ENHANCED]: wan('picture', 25, 6.5, true),
  [JobType.JOB_TYPE_IMAGE7B_HIGH_ENHANCED]: wan('picture', 50, 7.5, true),
  [JobType.JOB_TYPE_VIDEO7B_FAST_ENHANCED]: wan('clip', 25, 6.5, true),
  [JobType.JOB_TYPE_VIDEO7B_HIGH_ENHANCED]: wan('clip', 50, 7.5, true),
};

/** A request without a job type is a bare call of the model that it names: nothing is added to its prompt. */
const bare: Readonly<Record<Family, Preset>> = {
  sdxl: { ...sdxl(15, 6), negativePrompt: () => undefined },
  wan: wan('clip', 50, 5),
};

/**
 * @param family of the model that the request names, where it names one
 * @returns undefined for a number that is no job type
 */
export function presetOf(jobType: number, family: Family = 'sdxl'): Preset | undefined {
  return jobType === JobType.JOB_TYPE_UNSPECIFIED ? bare[family] : presets[jobType];
}
