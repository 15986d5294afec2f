import { createHash, randomInt } from 'node:crypto';
import type { Config } from '../../config/server-config.js';
import type { OutputOptions } from '../../engine/messages.js';
import { InferenceError } from '../../errors.js';
import { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import {
  DisconnectPolicy,
  JobType,
  OutputFormat,
  OutputMetadata,
  PromptSyntax,
  ReferenceRole,
} from '../../gen/darkroom/v1/job.js';
import type { FfmpegFinding } from '../../media/ffmpeg.js';
import type {
  Family,
  GenerationRequest,
  ModelInfo,
  PromptSyntax as PromptSyntaxName,
} from '../../pipelines/pipeline.js';
import { schedulerNamed, schedulerNames } from '../../schedulers/beta-schedulers.js';
import { flowSchedulerNamed, flowSchedulerNames } from '../../schedulers/flow-schedulers.js';
import { assertNeeded } from './applied-references.js';
import { assertNoViolations, type Check, checkJobId, checkText, createCheck } from './field-checks.js';
import type { LoraRegistry } from './lora-registry.js';
import { checkLoras, findLoras, takeLoras } from './loras.js';
import { type Preset, presetOf } from './presets.js';
import { type PlannedReferences, planReferences } from './references.js';
import { planStepSaving } from './step-saving.js';

const MIN_SIDE_PIXELS = 64;
const MAX_GUIDANCE = 50;
const MAX_DRAWN_SEED = 999_999_999;
const IMAGE_COUNTS: readonly number[] = [1, 3, 6];
const MAX_PREVIEWS_PER_SECOND = 4;
const MAX_LABELS = 64;
const MAX_LABEL_BYTES = 1024;
/** What a model offers before it was loaded once. */
const DEFAULTS: Readonly<Record<Family, Pick<ModelInfo, 'nativeWidth' | 'nativeHeight' | 'sizeMultiple'>>> = {
  sdxl: { nativeWidth: 1024, nativeHeight: 1024, sizeMultiple: 8 },
  wan: { nativeWidth: 832, nativeHeight: 480, sizeMultiple: 16 },
};
/** Frames of a WAN clip where the request has none, and how many a second of it has: what the model was trained on. */
const DEFAULT_FRAMES = 81;
const WAN_FPS = 16;

/** What a request comes to, presets and defaults filled in. */
export interface JobPlan {
  /** Without the reference's picture, which is still to be fetched. */
  readonly request: GenerationRequest;
  readonly output: OutputOptions;
  readonly references: PlannedReferences | undefined;
  /** As it was sent, with what it says of LoRAs. */
  readonly prompt: string;
  /** Whether the prompt is rewritten first. */
  readonly isEnhanced: boolean;
}

export interface Model {
  readonly name: string;
  readonly family: Family;
  /** Once it is known. */
  readonly info: ModelInfo | undefined;
}

/** What a request may name, as it was found on this machine. */
export interface Surroundings {
  /** That writes clips, or why there is none. */
  readonly ffmpeg: FfmpegFinding;
  readonly loras: LoraRegistry;
}

/**
 * Checks a request and fills in presets and defaults.
 * @throws InferenceError INVALID_REQUEST with every bad field; LORA_NOT_FOUND and what is wrong with a LoRA; FFMPEG_MISSING
 */
export function resolveRequest(
  request: GenerateRequest,
  config: Config,
  { name, family, info }: Model,
  { ffmpeg, loras: registry }: Surroundings,
): JobPlan {
  const { check, violations } = createCheck();
  const preset = presetOf(request.jobType, family);
  const makes = preset?.makes ?? 'pictures';
  check(
    preset === undefined || preset.family === family,
    'model',
    `model "${request.model}" is of the family ${family}, the job_type needs ${preset?.family}; leave one of them out`,
  );
  check(preset !== undefined, 'job_type', `job_type ${request.jobType} is unknown; use a value of JobType`);
  checkJobId(request.jobId, check);
  const named = takeLoras(request);
  checkLoras(named.loras, check);
  checkText('prompt', request.prompt, config.LIMIT_PROMPT_BYTES, check);
  checkText('negative_prompt', request.negativePrompt ?? '', config.LIMIT_PROMPT_BYTES, check);
  checkText('weights', request.weights, config.LIMIT_PROMPT_BYTES, check);

  const { nativeWidth, nativeHeight, sizeMultiple } = info ?? DEFAULTS[family];
  const side = (field: 'width' | 'height') => {
    const nativeSize = field === 'width' ? nativeWidth : nativeHeight;
    const value = request[field] || nativeSize;
    const max = config.LIMIT_SIDE_PIXELS;
    if (value < Math.min(MIN_SIDE_PIXELS, nativeSize) || value > max) {
      check(
        false,
        field,
        `${field} ${value} must be >= ${MIN_SIDE_PIXELS} and <= ${max}; change it or raise LIMIT_SIDE_PIXELS`,
      );
    } else if (value % sizeMultiple !== 0) {
      const below = value - (value % sizeMultiple);
      check(
        false,
        field,
        `${field} ${value} must be a multiple of ${sizeMultiple}; use ${below} or ${below + sizeMultiple}`,
      );
    }
    return value;
  };
  const [width, height] = [side('width'), side('height')];

  const steps = request.steps ?? preset?.steps ?? 1;
  check(
    steps >= 1 && steps <= config.LIMIT_STEPS,
    'steps',
    `steps ${steps} must be >= 1 and <= ${config.LIMIT_STEPS}; change it or raise LIMIT_STEPS`,
  );
  const references = planReferences(
    request.references,
    { model: name, family, info, makes, steps, limitBytes: config.REFERENCE_MAX_BYTES },
    check,
  );
  const byReference = family === 'wan' && references ? wanGuidance(references.strength) : undefined;
  const guidanceScale = request.guidanceScale ?? byReference ?? preset?.guidanceScale ?? 1;
  check(
    guidanceScale >= 0 && guidanceScale <= MAX_GUIDANCE,
    'guidance_scale',
    `guidance_scale ${guidanceScale} must be >= 0 and <= ${MAX_GUIDANCE}`,
  );
  const saving = planStepSaving(request, family, check);
  const asked = request.scheduler || (family === 'wan' ? 'flow_unipc' : 'euler');
  const known = family === 'wan' ? flowSchedulerNames : schedulerNames;
  const scheduler = (family === 'wan' ? flowSchedulerNamed(asked) : schedulerNamed(asked, known)) ?? '';
  check(scheduler !== '', 'scheduler', `scheduler "${asked.slice(0, 64)}" must be one of ${known.join(', ')}`);
  const numImages = request.numImages || 1;
  check(
    makes === 'pictures' ? IMAGE_COUNTS.includes(numImages) : numImages === 1,
    'num_images',
    `num_images ${numImages} must be ${makes === 'pictures' ? '1, 3 or 6' : '1 for WAN'}`,
  );
  checkFrames(request, makes, config, check);
  check(family === 'sdxl' || request.weights === '', 'weights', 'weights are for SDXL; leave them out for WAN');
  const seed = request.seed === undefined ? randomInt(1, MAX_DRAWN_SEED + 1) : Number(request.seed);
  check(
    seed >= 0 && seed + numImages - 1 <= Number.MAX_SAFE_INTEGER,
    'seed',
    `seed ${request.seed} must be >= 0 and, with num_images added, <= ${Number.MAX_SAFE_INTEGER}`,
  );
  const checkKnown = (isKnown: boolean, field: string, type: string) =>
    check(isKnown, field, `${field} is unknown; use a value of ${type}`);
  checkKnown(isValue(DisconnectPolicy, request.disconnectPolicy), 'disconnect_policy', 'DisconnectPolicy');
  checkKnown(isValue(OutputFormat, request.outputFormat), 'output_format', 'OutputFormat');
  check(
    (makes === 'clip' ? CLIP_FORMATS : PICTURE_FORMATS).includes(request.outputFormat) ||
      !isValue(OutputFormat, request.outputFormat),
    'output_format',
    makes === 'clip'
      ? 'output_format of a clip must be OUTPUT_FORMAT_MP4 or OUTPUT_FORMAT_WEBP'
      : 'output_format of a picture must be OUTPUT_FORMAT_PNG, OUTPUT_FORMAT_WEBP or OUTPUT_FORMAT_JPEG',
  );
  const { previewsPerSecond, outputQuality } = request;
  check(
    previewsPerSecond >= 0 && previewsPerSecond <= MAX_PREVIEWS_PER_SECOND,
    'previews_per_second',
    `previews_per_second ${previewsPerSecond} must be >= 0 and <= ${MAX_PREVIEWS_PER_SECOND}`,
  );
  check(
    outputQuality <= 100,
    'output_quality',
    `output_quality ${outputQuality} must be >= 1 and <= 100; 0 takes the default`,
  );
  checkKnown(isValue(OutputMetadata, request.outputMetadata), 'output_metadata', 'OutputMetadata');
  checkKnown(isValue(PromptSyntax, request.promptSyntax), 'prompt_syntax', 'PromptSyntax');
  check(
    request.weights === '' || syntaxOf(request) === 'weighted',
    'prompt_syntax',
    'prompt_syntax must be unset or PROMPT_SYNTAX_WEIGHTED where there are weights',
  );
  const labels = Object.entries(request.labels);
  check(
    labels.length <= MAX_LABELS && labels.every((entry) => Buffer.byteLength(entry.join('')) <= MAX_LABEL_BYTES),
    'labels',
    `labels must be at most ${MAX_LABELS} entries of ${MAX_LABEL_BYTES} bytes`,
  );
  assertNoViolations(violations);
  if (preset === undefined) throw new Error('a request without a preset was let through');
  assertNeeded(references, { model: name, isClip: makes === 'clip', info });
  const loras = findLoras(named.loras, family, registry);
  if (makes === 'clip' && !ffmpeg.found) {
    throw new InferenceError('FFMPEG_MISSING', `clips need ffmpeg: ${ffmpeg.detail}; ${ffmpeg.fix}`);
  }
  return {
    request: {
      prompt: named.prompt,
      negativePrompt: request.negativePrompt ?? preset.negativePrompt(named.prompt, info?.frames),
      promptSyntax: syntaxOf(request),
      weights: named.weights,
      width,
      height,
      steps,
      guidanceScale,
      scheduler,
      seeds: Array.from({ length: numImages }, (_, k) => seed + k),
      previewsPerSecond,
      ...(loras.length > 0 && { loras }),
      ...(family === 'wan' && {
        clip: {
          frames: makes === 'clip' ? framesOf(request.frames || DEFAULT_FRAMES) : 1,
          ...saving,
        },
      }),
    },
    output: {
      format: makes === 'clip' ? 'jpeg' : (FORMATS[request.outputFormat] ?? 'png'),
      ...(outputQuality > 0 && { quality: outputQuality }),
      metadata: METADATA[request.outputMetadata] ?? config.OUTPUT_METADATA,
      ...(makes === 'clip' &&
        ffmpeg.found && {
          clip: {
            ffmpeg: ffmpeg.path,
            format: request.outputFormat === OutputFormat.OUTPUT_FORMAT_WEBP ? 'webp' : 'mp4',
            fps: WAN_FPS,
            crf: config.VIDEO_CRF,
          } as const,
        }),
    },
    references,
    prompt: request.prompt,
    isEnhanced: preset.isEnhanced,
  };
}

/** With a reference, the contract's guidance scale of WAN: the stronger it conditions, the stronger the text has to. */
function wanGuidance(strength: number): number {
  return 5 + 4 * strength;
}

/** WAN takes 4n + 1 frames: a request for 83 gives 81, as in the original code. */
function framesOf(frames: number): number {
  return 1 + 4 * Math.floor((frames - 1) / 4);
}

function checkFrames(
  { frames, references }: GenerateRequest,
  makes: Preset['makes'],
  { LIMIT_FRAMES }: Config,
  check: Check,
): void {
  if (makes === 'clip') {
    check(
      frames <= LIMIT_FRAMES,
      'frames',
      `frames ${frames} must be >= 1 and <= ${LIMIT_FRAMES}; change it or raise LIMIT_FRAMES`,
    );
    // Never pretend: a clip of one frame has no last one beside its first.
    check(
      frames === 0 || frames > 4 || !references.some(({ role }) => role === ReferenceRole.REFERENCE_ROLE_END),
      'frames',
      `frames ${frames} must be >= 5 with an end reference`,
    );
  } else {
    check(frames <= 1, 'frames', `frames ${frames} are for clips; leave them out for a picture`);
  }
}

const PICTURE_FORMATS: readonly number[] = [
  OutputFormat.OUTPUT_FORMAT_UNSPECIFIED,
  OutputFormat.OUTPUT_FORMAT_PNG,
  OutputFormat.OUTPUT_FORMAT_WEBP,
  OutputFormat.OUTPUT_FORMAT_JPEG,
];
const CLIP_FORMATS: readonly number[] = [
  OutputFormat.OUTPUT_FORMAT_UNSPECIFIED,
  OutputFormat.OUTPUT_FORMAT_MP4,
  OutputFormat.OUTPUT_FORMAT_WEBP,
];

const FORMATS: Readonly<Record<number, OutputOptions['format']>> = {
  [OutputFormat.OUTPUT_FORMAT_WEBP]: 'webp',
  [OutputFormat.OUTPUT_FORMAT_JPEG]: 'jpeg',
};

const METADATA: Readonly<Record<number, OutputOptions['metadata']>> = {
  [OutputMetadata.OUTPUT_METADATA_FULL]: 'full',
  [OutputMetadata.OUTPUT_METADATA_PROVENANCE]: 'provenance',
  [OutputMetadata.OUTPUT_METADATA_NONE]: 'none',
};

/** How the values that say a syntax read a prompt. */
export const promptSyntaxes: Readonly<Record<number, PromptSyntaxName>> = {
  [PromptSyntax.PROMPT_SYNTAX_DIFFUSERS]: 'diffusers',
  [PromptSyntax.PROMPT_SYNTAX_PLAIN]: 'plain',
  [PromptSyntax.PROMPT_SYNTAX_WEIGHTED]: 'weighted',
};

/** A caller without a job type means what diffusers means; the others were promised that nothing is dropped. */
function syntaxOf({ promptSyntax, weights, jobType }: GenerateRequest): PromptSyntaxName {
  const unsaid = jobType === JobType.JOB_TYPE_UNSPECIFIED ? 'diffusers' : 'plain';
  return promptSyntaxes[promptSyntax] ?? (weights === '' ? unsaid : 'weighted');
}

/** The same for equal bodies, whatever their id: what makes a job id an idempotency key. */
export function hashRequest(request: GenerateRequest): string {
  const labels = Object.fromEntries(Object.entries(request.labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256')
    .update(GenerateRequest.encode({ ...request, jobId: '', labels }).finish())
    .digest('hex');
}

function isValue(known: Readonly<Record<string, number>>, value: number): boolean {
  return Object.values(known).includes(value);
}
