import { JobType } from '../gen/darkroom/v1/job.js';

/** What a job type stands for; every value may be overridden by the request. */
export interface Preset {
  readonly family: 'sdxl' | 'wan';
  readonly steps: number;
  readonly guidanceScale: number;
  /** The default; undefined is an absent one, which diffusers treats otherwise than an empty one. */
  negativePrompt(prompt: string): string | undefined;
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

const sdxl = (steps: number, guidanceScale: number): Preset => ({
  family: 'sdxl',
  steps,
  guidanceScale,
  negativePrompt: sdxlNegativePrompt,
});
const wan = (steps: number, guidanceScale: number): Preset => ({
  family: 'wan',
  steps,
  guidanceScale,
  negativePrompt: () => undefined,
});

const presets: Readonly<Record<number, Preset>> = {
  [JobType.JOB_TYPE_UNSPECIFIED]: { ...sdxl(15, 6), negativePrompt: () => undefined },
  [JobType.JOB_TYPE_SDXL_IMAGE_FAST]: sdxl(15, 6),
  [JobType.JOB_TYPE_SDXL_IMAGE_HIGH]: sdxl(25, 7.5),
  [JobType.JOB_TYPE_IMAGE_FAST]: wan(25, 6.5),
  [JobType.JOB_TYPE_IMAGE_HIGH]: wan(50, 7.5),
  [JobType.JOB_TYPE_VIDEO_FAST]: wan(25, 6.5),
  [JobType.JOB_TYPE_VIDEO_HIGH]: wan(50, 7.5),
  [JobType.JOB_TYPE_IMAGE7B_FAST_ENHANCED]: wan(25, 6.5),
  [JobType.JOB_TYPE_IMAGE7B_HIGH_ENHANCED]: wan(50, 7.5),
  [JobType.JOB_TYPE_VIDEO7B_FAST_ENHANCED]: wan(25, 6.5),
  [JobType.JOB_TYPE_VIDEO7B_HIGH_ENHANCED]: wan(50, 7.5),
};

/** undefined for a number that is no job type. */
export function presetOf(jobType: number): Preset | undefined {
  return presets[jobType];
}
