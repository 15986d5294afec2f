import { createHash, randomInt } from 'node:crypto';
import type { Config } from '../config.js';
import type { OutputOptions } from '../engine/messages.js';
import { type FieldViolation, InferenceError } from '../errors.js';
import { GenerateRequest } from '../gen/darkroom/v1/inference_service.js';
import { DisconnectPolicy, JobType, OutputFormat, OutputMetadata, PromptSyntax } from '../gen/darkroom/v1/job.js';
import type { ImageRequest, ModelInfo, PromptSyntax as PromptSyntaxName } from '../pipelines/pipeline.js';
import { schedulerNamed } from '../schedulers/names.js';
import { presetOf } from './presets.js';
import { type Check, type PlannedReference, planReference } from './references.js';

/** Room for a UUID, a date and a name; keys of logs and of stores. */
const JOB_ID = /^[A-Za-z0-9._:-]{1,128}$/;
const MIN_SIDE_PIXELS = 64;
const MAX_GUIDANCE = 50;
const MAX_DRAWN_SEED = 999_999_999;
const IMAGE_COUNTS: readonly number[] = [1, 3, 6];
const MAX_PREVIEWS_PER_SECOND = 4;
const MAX_LABELS = 64;
const MAX_LABEL_BYTES = 1024;
/** What a model offers before it was loaded once. */
const SDXL_DEFAULTS = { nativeSize: 1024, sizeMultiple: 8 } as const;

/** What a request comes to, presets and defaults filled in. */
export interface JobPlan {
  /** Without the reference's picture, which is still to be fetched. */
  readonly request: ImageRequest;
  readonly output: OutputOptions;
  readonly reference: PlannedReference | undefined;
}

/**
 * Checks a request and fills in presets and defaults.
 * @param info of the model, once it is known
 * @throws InferenceError INVALID_REQUEST with every bad field; NOT_SERVED_YET for what a later version will serve
 */
export function resolveRequest(request: GenerateRequest, config: Config, info: ModelInfo | undefined): JobPlan {
  const violations: FieldViolation[] = [];
  const check = (holds: boolean, field: string, description: string) => {
    if (!holds) violations.push({ field, description });
  };
  const preset = presetOf(request.jobType);
  check(preset !== undefined, 'job_type', `job_type ${request.jobType} is unknown; use a value of JobType`);
  check(
    request.jobId === '' || JOB_ID.test(request.jobId),
    'job_id',
    'job_id must be 1 to 128 letters, digits, ".", "_", ":" or "-"; leave it empty to have one chosen',
  );
  checkText('prompt', request.prompt, config, check);
  checkText('negative_prompt', request.negativePrompt ?? '', config, check);
  checkText('weights', request.weights, config, check);

  const { nativeSize, sizeMultiple } = info ?? SDXL_DEFAULTS;
  const side = (field: 'width' | 'height') => {
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
  const guidanceScale = request.guidanceScale ?? preset?.guidanceScale ?? 1;
  check(
    guidanceScale >= 0 && guidanceScale <= MAX_GUIDANCE,
    'guidance_scale',
    `guidance_scale ${guidanceScale} must be >= 0 and <= ${MAX_GUIDANCE}`,
  );
  const asked = request.scheduler || 'euler';
  const scheduler = info === undefined ? asked : (schedulerNamed(asked, info.schedulers) ?? '');
  check(
    scheduler !== '',
    'scheduler',
    `scheduler "${asked.slice(0, 64)}" must be one of ${info?.schedulers.join(', ')}`,
  );
  const numImages = request.numImages || 1;
  check(IMAGE_COUNTS.includes(numImages), 'num_images', `num_images ${numImages} must be 1, 3 or 6`);
  const seed = request.seed === undefined ? randomInt(1, MAX_DRAWN_SEED + 1) : Number(request.seed);
  check(
    seed >= 0 && seed + numImages - 1 <= Number.MAX_SAFE_INTEGER,
    'seed',
    `seed ${request.seed} must be >= 0 and, with num_images added, <= ${Number.MAX_SAFE_INTEGER}`,
  );
  check(
    isValue(DisconnectPolicy, request.disconnectPolicy),
    'disconnect_policy',
    'disconnect_policy is unknown; use a value of DisconnectPolicy',
  );
  check(
    isValue(OutputFormat, request.outputFormat),
    'output_format',
    'output_format is unknown; use a value of OutputFormat',
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
  check(
    isValue(OutputMetadata, request.outputMetadata),
    'output_metadata',
    'output_metadata is unknown; use a value of OutputMetadata',
  );
  check(
    isValue(PromptSyntax, request.promptSyntax),
    'prompt_syntax',
    'prompt_syntax is unknown; use a value of PromptSyntax',
  );
  check(
    request.weights === '' || syntaxOf(request) === 'weighted',
    'prompt_syntax',
    'prompt_syntax must be unset or PROMPT_SYNTAX_WEIGHTED where there are weights',
  );
  const reference = planReference(request.references, { steps, limitBytes: config.REFERENCE_MAX_BYTES }, check);
  const labels = Object.entries(request.labels);
  check(
    labels.length <= MAX_LABELS && labels.every((entry) => Buffer.byteLength(entry.join('')) <= MAX_LABEL_BYTES),
    'labels',
    `labels must be at most ${MAX_LABELS} entries of ${MAX_LABEL_BYTES} bytes`,
  );
  if (violations.length > 0 || preset === undefined) {
    throw new InferenceError(
      'INVALID_REQUEST',
      `Invalid parameters: ${violations.map((v) => v.description).join('; ')}`,
      {
        violations,
      },
    );
  }
  assertServed(request);
  return {
    request: {
      prompt: request.prompt,
      negativePrompt: request.negativePrompt ?? preset.negativePrompt(request.prompt),
      promptSyntax: syntaxOf(request),
      weights: request.weights,
      width,
      height,
      steps,
      guidanceScale,
      scheduler,
      seeds: Array.from({ length: numImages }, (_, k) => seed + k),
      previewsPerSecond,
    },
    output: {
      format: FORMATS[request.outputFormat] ?? 'png',
      ...(outputQuality > 0 && { quality: outputQuality }),
      metadata: METADATA[request.outputMetadata] ?? config.OUTPUT_METADATA,
    },
    reference,
  };
}

const FORMATS: Readonly<Record<number, OutputOptions['format']>> = {
  [OutputFormat.OUTPUT_FORMAT_WEBP]: 'webp',
  [OutputFormat.OUTPUT_FORMAT_JPEG]: 'jpeg',
};

const METADATA: Readonly<Record<number, OutputOptions['metadata']>> = {
  [OutputMetadata.OUTPUT_METADATA_FULL]: 'full',
  [OutputMetadata.OUTPUT_METADATA_PROVENANCE]: 'provenance',
  [OutputMetadata.OUTPUT_METADATA_NONE]: 'none',
};

const SYNTAXES: Readonly<Record<number, PromptSyntaxName>> = {
  [PromptSyntax.PROMPT_SYNTAX_DIFFUSERS]: 'diffusers',
  [PromptSyntax.PROMPT_SYNTAX_PLAIN]: 'plain',
  [PromptSyntax.PROMPT_SYNTAX_WEIGHTED]: 'weighted',
};

/** A caller without a job type means what diffusers means; the others were promised that nothing is dropped. */
function syntaxOf({ promptSyntax, weights, jobType }: GenerateRequest): PromptSyntaxName {
  const unsaid = jobType === JobType.JOB_TYPE_UNSPECIFIED ? 'diffusers' : 'plain';
  return SYNTAXES[promptSyntax] ?? (weights === '' ? unsaid : 'weighted');
}

/** The same for equal bodies, whatever their id: what makes a job id an idempotency key. */
export function hashRequest(request: GenerateRequest): string {
  const labels = Object.fromEntries(Object.entries(request.labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256')
    .update(GenerateRequest.encode({ ...request, jobId: '', labels }).finish())
    .digest('hex');
}

function checkText(field: string, text: string, { LIMIT_PROMPT_BYTES }: Config, check: Check): void {
  const bytes = Buffer.byteLength(text);
  check(
    bytes <= LIMIT_PROMPT_BYTES,
    field,
    `${field} of ${bytes} bytes must be <= ${LIMIT_PROMPT_BYTES}; shorten it or raise LIMIT_PROMPT_BYTES`,
  );
  check(!text.includes('\0'), field, `${field} has a NUL character; remove it`);
}

function assertServed(request: GenerateRequest): void {
  const asked: readonly [boolean, string][] = [
    [request.loras.length > 0, 'loras'],
    [request.frames > 0, 'frames'],
    [request.jobType > JobType.JOB_TYPE_SDXL_IMAGE_HIGH, 'job_type of WAN and of enhanced prompts'],
  ];
  const missing = asked.flatMap(([isAsked, what]) => (isAsked ? [what] : []));
  if (missing.length === 0) return;
  throw new InferenceError('NOT_SERVED_YET', `not served by this version: ${missing.join(', ')}; leave it out`);
}

function isValue(known: Readonly<Record<string, number>>, value: number): boolean {
  return Object.values(known).includes(value);
}
