import { z } from 'zod';
import { InferenceError } from '../errors.js';
import type { GenerateRequest } from '../gen/darkroom/v1/inference_service.js';
import {
  ControlMode,
  type ControlVideo,
  DisconnectPolicy,
  JobType,
  OutputFormat,
  PromptSyntax,
  ReferenceRole,
  ReferenceType,
  type Upscale,
} from '../gen/darkroom/v1/job.js';
import { problemOf } from '../std/schema-problems.js';

/** Parses the short, lower-case name of an enum's value: "jpeg" is OUTPUT_FORMAT_JPEG. */
function enumName<T extends number>(values: Readonly<Record<string, T>>, prefix: string) {
  const known = Object.entries(values).filter(([key]) => key.startsWith(`${prefix}_`) && !key.endsWith('_UNSPECIFIED'));
  const byName = new Map(known.map(([key, value]) => [key.slice(prefix.length + 1).toLowerCase(), value]));
  return z.enum([...byName.keys()]).transform((name) => byName.get(name) as T);
}

const WHOLE = 'must be a whole number, 0 to 4294967295';
const whole = z
  .number({ error: WHOLE })
  .int(WHOLE)
  .min(0, WHOLE)
  .max(2 ** 32 - 1, WHOLE);

const SEED = 'must be a whole number, 0 to 9007199254740991, or its digits';

const referenceSchema = z.strictObject({
  image: z.base64().optional(),
  url: z.string().optional(),
  type: enumName(ReferenceType, 'REFERENCE_TYPE').optional(),
  role: enumName(ReferenceRole, 'REFERENCE_ROLE').optional(),
  strength: z.number().optional(),
  denoisingStrength: z.number().optional(),
});

const maskSchema = z.strictObject({
  image: z.base64().optional(),
  url: z.string().optional(),
  blur: z.number().optional(),
  cropPadding: whole.optional(),
});

const controlVideoSchema = z.strictObject({
  video: z.base64().optional(),
  url: z.string().optional(),
  scale: z.number().optional(),
});

const upscaleSchema = z.strictObject({
  upscaler: z.string().optional(),
  factor: z.number().optional(),
  strength: z.number().optional(),
  steps: whole.optional(),
});

const skipLayersSchema = z.strictObject({
  layers: z.array(whole).max(64).default([]),
  start: z.number().optional(),
  end: z.number().optional(),
  scale: z.number().default(0),
});

/** A GenerateRequest as JSON: the proto's names in camelCase, enums by their short names, bytes of images and videos in base64. */
const jobRequestSchema = z.strictObject({
  jobId: z.string().optional(),
  jobType: enumName(JobType, 'JOB_TYPE').optional(),
  model: z.string().optional(),
  prompt: z.string().default(''),
  negativePrompt: z.string().optional(),
  weights: z.string().optional(),
  promptSyntax: enumName(PromptSyntax, 'PROMPT_SYNTAX').optional(),
  width: whole.optional(),
  height: whole.optional(),
  steps: whole.optional(),
  guidanceScale: z.number().optional(),
  guidanceRescale: z.number().optional(),
  scheduler: z.string().optional(),
  samplingPreset: z.string().optional(),
  numImages: whole.optional(),
  /** A number, or its digits. */
  seed: z.union([z.number().int().min(0), z.string().regex(/^\d{1,16}$/)], { error: SEED }).optional(),
  frames: whole.optional(),
  outputFormat: enumName(OutputFormat, 'OUTPUT_FORMAT').optional(),
  outputQuality: whole.optional(),
  previewsPerSecond: z.number().optional(),
  references: z.array(referenceSchema).max(3).optional(),
  mask: maskSchema.optional(),
  controlVideo: controlVideoSchema.optional(),
  controls: z
    .array(
      z.strictObject({
        name: z.string(),
        image: z.base64().optional(),
        url: z.string().optional(),
        scale: z.number().optional(),
        start: z.number().optional(),
        end: z.number().optional(),
        mode: enumName(ControlMode, 'CONTROL_MODE').optional(),
      }),
    )
    .max(16)
    .optional(),
  deepCacheInterval: whole.optional(),
  skipLayerGuidance: skipLayersSchema.optional(),
  dynamicThresholding: z
    .strictObject({ mimicScale: z.number().optional(), percentile: z.number().optional() })
    .optional(),
  upscale: upscaleSchema.optional(),
  loras: z
    .array(
      z.strictObject({ name: z.string(), weight: z.number().optional(), textEncoderWeight: z.number().optional() }),
    )
    .max(16)
    .optional(),
  labels: z.record(z.string(), z.string()).optional(),
});

/** @throws InferenceError INVALID_REQUEST that lists every bad field; the server checks the rest */
export function jobRequest(body: unknown): Partial<GenerateRequest> {
  const {
    seed,
    references = [],
    mask,
    controlVideo,
    controls = [],
    loras = [],
    upscale,
    ...rest
  } = parseBody(jobRequestSchema, body);
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  return {
    ...given,
    ...(seed !== undefined && { seed: BigInt(seed) }),
    // The job outlives the request that started it: other requests watch it.
    disconnectPolicy: DisconnectPolicy.DISCONNECT_POLICY_CONTINUE,
    references: references.map(({ image, url, type, role, ...strengths }) => ({
      source: sourceOf(image, url),
      type: type ?? ReferenceType.REFERENCE_TYPE_UNSPECIFIED,
      role: role ?? ReferenceRole.REFERENCE_ROLE_UNSPECIFIED,
      strength: strengths.strength,
      denoisingStrength: strengths.denoisingStrength,
    })),
    ...(mask !== undefined && {
      mask: { source: sourceOf(mask.image, mask.url), blur: mask.blur ?? 0, cropPadding: mask.cropPadding },
    }),
    ...(controlVideo !== undefined && { controlVideo: controlVideoOf(controlVideo) }),
    ...(upscale !== undefined && { upscale: upscaleOf(upscale) }),
    controls: controls.map(({ name, image, url, scale, start, end, mode }) => ({
      ...{ name, source: sourceOf(image, url), scale, start, end },
      mode: mode ?? ControlMode.CONTROL_MODE_UNSPECIFIED,
    })),
    loras: loras.map(({ name, weight, textEncoderWeight }) => ({ name, weight, textEncoderWeight })),
  };
}

function controlVideoOf({ video, url, scale }: z.infer<typeof controlVideoSchema>): ControlVideo {
  const source =
    video === undefined
      ? ({ $case: 'url', value: url ?? '' } as const)
      : ({ $case: 'video', value: Buffer.from(video, 'base64') } as const);
  return { source, scale };
}

function upscaleOf({ upscaler = '', factor, strength, steps = 0 }: z.infer<typeof upscaleSchema>): Upscale {
  return { upscaler, factor, strength, steps };
}

function sourceOf(image: string | undefined, url: string | undefined) {
  if (image === undefined) return { $case: 'url' as const, value: url ?? '' };
  return { $case: 'image' as const, value: Buffer.from(image, 'base64') };
}

const tokenizeSchema = z.strictObject({
  text: z.string(),
  model: z.string().optional(),
  promptSyntax: enumName(PromptSyntax, 'PROMPT_SYNTAX').optional(),
});

/** @throws InferenceError INVALID_REQUEST that lists every bad field */
export function tokenizeRequest(body: unknown) {
  const { text, model = '', promptSyntax } = parseBody(tokenizeSchema, body);
  return { text, model, promptSyntax: promptSyntax ?? PromptSyntax.PROMPT_SYNTAX_UNSPECIFIED };
}

const replaySchema = z.strictObject({ id: z.string().min(1).max(128), callbackOnly: z.boolean().default(false) });

/** @throws InferenceError INVALID_REQUEST that lists every bad field */
export function replayRequest(body: unknown) {
  return parseBody(replaySchema, body);
}

/**
 * @param name of what is parsed, for a problem of the whole. Default: body
 * @throws InferenceError INVALID_REQUEST that lists every bad field
 */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown, name = 'body'): z.infer<T> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const violations = parsed.error.issues.map((issue) => ({
    field: issue.path.join('.') || name,
    description: problemOf(issue),
  }));
  const [first] = violations;
  throw new InferenceError('INVALID_REQUEST', `${first?.field}: ${first?.description}`, { violations });
}
