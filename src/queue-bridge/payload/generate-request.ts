import { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import {
  DisconnectPolicy,
  JobType,
  OutputFormat,
  type Reference,
  ReferenceRole,
  ReferenceType,
} from '../../gen/darkroom/v1/job.js';
import { jobTypes } from './job-types.js';
import type { JobPayload } from './payload.js';

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

export interface RequestContext {
  /** What the server knows the job by. */
  readonly jobId: string;
  /** Used where the payload has none: drawn once and kept in the journal. */
  readonly seed: number;
  /** What the server keeps with the job. */
  readonly labels: Readonly<Record<string, string>>;
}

/** What a payload asks of a server. The same payload and seed give the same bytes: the server attaches by them. */
export function generateRequestFrom(payload: JobPayload, { jobId, seed, labels }: RequestContext): GenerateRequest {
  const { type, prompt, compel_enabled, compel_weights = '', config = noConfig } = payload;
  const info = jobTypes.get(type);
  return GenerateRequest.fromPartial({
    jobId,
    jobType: info?.value ?? JobType.JOB_TYPE_UNSPECIFIED,
    prompt,
    // WAN has no weights: they say nothing there, as in the old system.
    weights: compel_enabled === true && info?.takesWeights ? compel_weights : '',
    negativePrompt: config.negative_prompt,
    width: config.width ?? 0,
    height: config.height ?? 0,
    steps: config.steps ?? config.num_inference_steps ?? config.sample_steps,
    guidanceScale: config.guidance_scale ?? config.sample_guide_scale,
    scheduler: config.scheduler ?? '',
    numImages: config.num_images ?? 0,
    seed: BigInt(config.seed ?? seed),
    frames: info?.makes === 'video' ? (config.frames ?? config.frame_num ?? 0) : 0,
    references: [...referencesFrom(payload)],
    outputFormat: OUTPUT_FORMATS[config.output_format ?? ''] ?? OutputFormat.OUTPUT_FORMAT_UNSPECIFIED,
    // A bridge that dies leaves its job to the next one.
    disconnectPolicy: DisconnectPolicy.DISCONNECT_POLICY_CONTINUE,
    labels,
  });
}

const noConfig: NonNullable<JobPayload['config']> = {} as NonNullable<JobPayload['config']>;
const noMetadata: NonNullable<JobPayload['metadata']> = {} as NonNullable<JobPayload['metadata']>;

/** The contract's five modes: of pictures a single one, of clips a start, an end, or both. */
function referencesFrom({ type, config = noConfig, metadata = noMetadata }: JobPayload): readonly Reference[] {
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
  const { REFERENCE_ROLE_UNSPECIFIED, REFERENCE_ROLE_START, REFERENCE_ROLE_END } = ReferenceRole;
  if (jobTypes.get(type)?.makes !== 'video') {
    const picture = single ?? start ?? end;
    return picture === undefined ? [] : [reference(picture, REFERENCE_ROLE_UNSPECIFIED)];
  }
  // A single reference of a clip is its first frame; beside another start it has no place.
  const first =
    start !== undefined
      ? [reference(start, REFERENCE_ROLE_START)]
      : single !== undefined
        ? [reference(single, end === undefined ? REFERENCE_ROLE_UNSPECIFIED : REFERENCE_ROLE_START)]
        : [];
  return end === undefined ? first : [...first, reference(end, REFERENCE_ROLE_END)];
}
