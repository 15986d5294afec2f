import { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import {
  type Control,
  type ControlMode,
  DisconnectPolicy,
  JobType,
  type Mask,
  OutputFormat,
  type Reference,
  ReferenceRole,
  ReferenceType,
  type SkipLayerGuidance,
  type Upscale,
} from '../../gen/darkroom/v1/job.js';
import type { JobTypeInfo } from '../../job-types.js';
import { CONTROL_MODES, type JobPayload, type ReadJob } from './payload.js';

const REFERENCE_TYPES: Readonly<Record<string, ReferenceType>> = {
  style: ReferenceType.REFERENCE_TYPE_STYLE,
  composition: ReferenceType.REFERENCE_TYPE_COMPOSITION,
  character: ReferenceType.REFERENCE_TYPE_CHARACTER,
};

const OUTPUT_FORMATS: Readonly<Record<string, OutputFormat>> = {
  png: OutputFormat.OUTPUT_FORMAT_PNG,
  webp: OutputFormat.OUTPUT_FORMAT_WEBP,
  jpeg: OutputFormat.OUTPUT_FORMAT_JPEG,
  mp4: OutputFormat.OUTPUT_FORMAT_MP4,
};

export interface RequestOptions {
  /** Id of the job on the server. */
  readonly jobId: string;
  /** Seed of a payload that has none: drawn once and kept in the journal. */
  readonly seed: number;
}

/**
 * The request of a payload. The same payload and seed give the same bytes: by them the server recognises a job that it has.
 *
 * A job type that the API has no value for names the model instead, and sends the values that the server's preset would have.
 */
export function generateRequestFrom(
  { payload, jobType, labels }: Pick<ReadJob, 'payload' | 'jobType' | 'labels'>,
  { jobId, seed }: RequestOptions,
): GenerateRequest {
  const { prompt, compel_enabled, compel_weights = '', config = noConfig } = payload;
  const isBare = jobType.value === JobType.JOB_TYPE_UNSPECIFIED;
  const isPreset = !['', 'none'].includes(config.sampling_preset ?? '');
  const ownSettings = isBare && !isPreset ? jobType : undefined;
  return GenerateRequest.fromPartial({
    jobId,
    jobType: jobType.value,
    model: isBare ? (jobType.model ?? jobType.family) : '',
    prompt,
    // Weights are ignored for job types that do not take them, as in the old system.
    weights: compel_enabled === true && jobType.takesWeights ? compel_weights : '',
    negativePrompt: config.negative_prompt,
    width: config.width ?? 0,
    height: config.height ?? 0,
    steps: config.steps ?? config.num_inference_steps ?? config.sample_steps ?? ownSettings?.steps,
    guidanceScale: config.guidance_scale ?? config.sample_guide_scale ?? ownSettings?.guidanceScale,
    guidanceRescale: jobType.takesControls ? config.guidance_rescale : undefined,
    scheduler: config.scheduler ?? '',
    samplingPreset: config.sampling_preset ?? '',
    numImages: config.num_images ?? 0,
    seed: BigInt(config.seed ?? seed),
    frames: jobType.makes === 'video' ? (config.frames ?? config.frame_num ?? 0) : 0,
    references: [...referencesFrom(payload, jobType)],
    mask:
      jobType.takesMask && config.mask !== undefined
        ? maskFrom(config.mask, config.mask_blur, config.mask_crop_padding)
        : undefined,
    dynamicThresholding: config.dynamic_thresholding && {
      mimicScale: config.dynamic_thresholding.mimic_scale,
      percentile: config.dynamic_thresholding.percentile,
    },
    skipLayerGuidance: jobType.takesSkipLayers ? skipLayersFrom(config.skip_layer_guidance) : undefined,
    deepCacheInterval: jobType.takesControls ? (config.deep_cache_interval ?? 0) : 0,
    upscale: jobType.takesControls && config.upscale !== undefined ? upscaleFrom(config.upscale) : undefined,
    controlVideo:
      jobType.makes === 'video' && config.control_video !== undefined
        ? { source: { $case: 'url', value: config.control_video }, scale: config.control_video_scale }
        : undefined,
    controls: jobType.takesControls ? (config.controls ?? []).map(controlFrom) : [],
    outputFormat: OUTPUT_FORMATS[config.output_format ?? ''] ?? OutputFormat.OUTPUT_FORMAT_UNSPECIFIED,
    // If this bridge dies, the next one attaches to the job.
    disconnectPolicy: DisconnectPolicy.DISCONNECT_POLICY_CONTINUE,
    labels,
  });
}

type PayloadControl = NonNullable<NonNullable<JobPayload['config']>['controls']>[number];

const noConfig: NonNullable<JobPayload['config']> = {} as NonNullable<JobPayload['config']>;
const noMetadata: NonNullable<JobPayload['metadata']> = {} as NonNullable<JobPayload['metadata']>;

function maskFrom(url: string, blur = 0, cropPadding?: number): Mask {
  return { source: { $case: 'url', value: url }, blur, cropPadding };
}

type PayloadUpscale = NonNullable<NonNullable<JobPayload['config']>['upscale']>;

function upscaleFrom({ upscaler = '', factor, strength, steps = 0 }: PayloadUpscale): Upscale {
  return { upscaler, factor, strength, steps };
}

type PayloadSkipLayers = NonNullable<JobPayload['config']>['skip_layer_guidance'];

function skipLayersFrom(skipping: PayloadSkipLayers): SkipLayerGuidance | undefined {
  if (skipping === undefined) return undefined;
  const { layers, start, end, scale = 0 } = skipping;
  return { layers, start, end, scale };
}

function controlFrom({ name, image, mode, scale, start, end }: PayloadControl): Control {
  const kind = (mode === undefined ? 0 : 1 + CONTROL_MODES.indexOf(mode)) as ControlMode;
  return { name, source: { $case: 'url', value: image ?? '' }, scale, start, end, mode: kind };
}

/** The contract's five modes: none; for an image a single reference; for a video a start, an end, or both. A look may come with each. */
function referencesFrom(
  { config = noConfig, metadata = noMetadata }: JobPayload,
  { makes }: JobTypeInfo,
): readonly Reference[] {
  const single = config.image ?? metadata.reference_image_url;
  const start = config.first_frame ?? metadata.start_reference_url;
  const end = config.last_frame ?? metadata.end_reference_url;
  const reference = (url: string, role: ReferenceRole): Reference => ({
    source: { $case: 'url', value: url },
    type: REFERENCE_TYPES[metadata.reference_type ?? ''] ?? ReferenceType.REFERENCE_TYPE_UNSPECIFIED,
    role,
    strength: metadata.reference_strength,
    denoisingStrength: undefined,
  });
  const { REFERENCE_ROLE_UNSPECIFIED, REFERENCE_ROLE_START, REFERENCE_ROLE_END, REFERENCE_ROLE_LOOK } = ReferenceRole;
  if (makes !== 'video') {
    const url = single ?? start ?? end;
    return url === undefined ? [] : [reference(url, REFERENCE_ROLE_UNSPECIFIED)];
  }
  // A single reference of a video is its first frame. A start reference replaces it.
  const first =
    start !== undefined
      ? [reference(start, REFERENCE_ROLE_START)]
      : single !== undefined
        ? [reference(single, end === undefined ? REFERENCE_ROLE_UNSPECIFIED : REFERENCE_ROLE_START)]
        : [];
  return [
    ...first,
    ...(end === undefined ? [] : [reference(end, REFERENCE_ROLE_END)]),
    ...(config.look === undefined ? [] : [reference(config.look, REFERENCE_ROLE_LOOK)]),
  ];
}
