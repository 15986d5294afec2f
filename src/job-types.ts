import { JobType } from './gen/darkroom/v1/job.js';

/** `images`: 1, 3 or 6 of them. `image`: one. `video`: one. */
export type Makes = 'images' | 'image' | 'video';

/** A job type: a preset of the API and a kind of payload on a queue. */
export interface JobTypeInfo {
  /** Name in payloads and of the storage bucket. */
  readonly name: string;
  /** Value in the API. `JOB_TYPE_UNSPECIFIED`: the API has none, so that requests name the model instead. */
  readonly value: JobType;
  /** Family of the model that runs it; also the name of its lane in the bridge. */
  readonly family: string;
  /** Name of the model in requests that name it. Omitted: the family's name. */
  readonly model?: string;
  readonly makes: Makes;
  /** Denoising steps unless the request has its own. */
  readonly steps: number;
  /** Guidance scale unless the request has its own. */
  readonly guidanceScale: number;
  /** A language model rewrites the prompt first. */
  readonly isEnhanced: boolean;
  /** `compel_weights` apply. Elsewhere payloads may carry them, and the bridge ignores them as the old system did. */
  readonly takesWeights: boolean;
  /** A mask says which part of its reference is drawn anew. Omitted: masks are ignored. */
  readonly takesMask?: boolean;
  /** ControlNets act on its images. Omitted: controls are ignored. */
  readonly takesControls?: boolean;
  /** Skip-layer guidance acts on it. Omitted: it is ignored. */
  readonly takesSkipLayers?: boolean;
  /** Upper bound of the old system's time for that many images, in seconds, on an RTX 6000 Ada. */
  readonly expectedSeconds: (images: number) => number;
}

/** Job types by name. */
export type JobTypes = ReadonlyMap<string, JobTypeInfo>;

export function jobTypesOf(rows: readonly JobTypeInfo[]): JobTypes {
  return new Map(rows.map((row) => [row.name, row]));
}

type Row = Pick<JobTypeInfo, 'name' | 'value' | 'steps' | 'guidanceScale' | 'expectedSeconds'>;

const sdxl = (row: Row): JobTypeInfo => ({
  ...row,
  family: 'sdxl',
  makes: 'images',
  isEnhanced: false,
  takesWeights: true,
  takesMask: true,
  takesControls: true,
});
const wan = (makes: 'image' | 'video', isEnhanced: boolean, row: Row): JobTypeInfo => ({
  ...row,
  family: 'wan',
  makes,
  isEnhanced,
  takesWeights: false,
  takesSkipLayers: true,
});

const fast = { steps: 25, guidanceScale: 6.5 } as const;
const high = { steps: 50, guidanceScale: 7.5 } as const;
const seconds = (bound: number) => ({ expectedSeconds: () => bound });

/** The ten job types of the contract. */
export const contractJobTypes: JobTypes = jobTypesOf([
  sdxl({
    name: 'sdxl_image_fast',
    value: JobType.JOB_TYPE_SDXL_IMAGE_FAST,
    steps: 15,
    guidanceScale: 6,
    expectedSeconds: (images) => (images <= 1 ? 8 : images <= 3 ? 24 : 48),
  }),
  sdxl({
    name: 'sdxl_image_high',
    value: JobType.JOB_TYPE_SDXL_IMAGE_HIGH,
    steps: 25,
    guidanceScale: 7.5,
    ...seconds(24),
  }),
  wan('image', false, { name: 'image_fast', value: JobType.JOB_TYPE_IMAGE_FAST, ...fast, ...seconds(40) }),
  wan('image', false, { name: 'image_high', value: JobType.JOB_TYPE_IMAGE_HIGH, ...high, ...seconds(100) }),
  wan('video', false, { name: 'video_fast', value: JobType.JOB_TYPE_VIDEO_FAST, ...fast, ...seconds(180) }),
  wan('video', false, { name: 'video_high', value: JobType.JOB_TYPE_VIDEO_HIGH, ...high, ...seconds(240) }),
  wan('image', true, {
    name: 'image7b_fast_enhanced',
    value: JobType.JOB_TYPE_IMAGE7B_FAST_ENHANCED,
    ...fast,
    ...seconds(100),
  }),
  wan('image', true, {
    name: 'image7b_high_enhanced',
    value: JobType.JOB_TYPE_IMAGE7B_HIGH_ENHANCED,
    ...high,
    ...seconds(240),
  }),
  wan('video', true, {
    name: 'video7b_fast_enhanced',
    value: JobType.JOB_TYPE_VIDEO7B_FAST_ENHANCED,
    ...fast,
    ...seconds(240),
  }),
  wan('video', true, {
    name: 'video7b_high_enhanced',
    value: JobType.JOB_TYPE_VIDEO7B_HIGH_ENHANCED,
    ...high,
    ...seconds(240),
  }),
]);

/** The job type of an API value; undefined for `JOB_TYPE_UNSPECIFIED` and for numbers that the API does not know. */
export function jobTypeOfValue(types: JobTypes, value: JobType): JobTypeInfo | undefined {
  if (value === JobType.JOB_TYPE_UNSPECIFIED) return undefined;
  return [...types.values()].find((type) => type.value === value);
}
