import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { JobTypeInfo, JobTypes } from '../../job-types.js';
import { problemOf } from '../../std/schema-problems.js';
import { parseTraceparent } from '../../std/traceparent.js';
import { MAX_EXCERPT_CHARACTERS, MAX_LABEL_BYTES, MAX_LABELS, MAX_PAYLOAD_BYTES, MAX_READ_BYTES } from '../limits.js';

const NAME = /^(?!\.{1,2}$)[A-Za-z0-9._:-]{1,120}$/;

/** Ids and users are parts of file names and keys. Job ids on the server are up to eight characters longer, for replays. */
const nameSchema = z.string('must be a string').regex(NAME, 'must be 1 to 120 letters, digits, ".", "_", ":" or "-"');

/** Values that forms and PHP send for fields without a value. */
function isAbsent(value: unknown): boolean {
  return value === null || value === '' || (Array.isArray(value) && value.length === 0);
}

/** An optional field: null, an empty text and an empty list count as absent. @param read turns other spellings into the type */
const optional = <T extends z.ZodType>(schema: T, read: (value: unknown) => unknown = (value) => value) =>
  z.preprocess((value) => (isAbsent(value) ? undefined : read(value)), schema.optional());

/** Numbers may come as texts. A text that no number holds exactly stays a text, and is refused as one. */
function numberOf(value: unknown): unknown {
  if (typeof value !== 'string' || !/^\s*[+-]?\d{1,20}(\.\d{1,20})?\s*$/.test(value)) return value;
  const read = Number(value);
  return /^\s*[+-]?\d+\s*$/.test(value) && BigInt(value.trim().replace('+', '')) !== BigInt(read) ? value : read;
}

/** 1 and "true" are true, 0 and "false" are false. */
function booleanOf(value: unknown): unknown {
  if (value === 1 || value === '1' || value === 'true') return true;
  return value === 0 || value === '0' || value === 'false' ? false : value;
}

const uint32Schema = z
  .int('must be a whole number')
  .min(0, 'must be >= 0')
  .max(2 ** 32 - 1, 'must be < 2^32');
const uint32 = optional(uint32Schema, numberOf);
const number = optional(z.number('must be a number'), numberOf);
const text = optional(z.string('must be a string'));
/** -1 asks for a random seed, as in A1111 and ComfyUI. */
const seed = optional(
  z
    .int('must be a whole number up to 2^53 - 1')
    .min(-1, 'must be >= 0, or -1 for a random one')
    .max(Number.MAX_SAFE_INTEGER, 'must be <= 2^53 - 1')
    .transform((value) => (value === -1 ? undefined : value)),
  numberOf,
);
const outputFormat = optional(z.enum(['png', 'webp', 'jpeg', 'mp4'], 'must be png, webp, jpeg or mp4'), (value) => {
  const name = typeof value === 'string' ? value.toLowerCase() : value;
  return name === 'jpg' ? 'jpeg' : name;
});

/** Kinds of control images, in the order of the API's ControlMode. */
export const CONTROL_MODES = [
  'openpose',
  'depth',
  'soft_edge',
  'canny',
  'normal',
  'segment',
  'tile',
  'repaint',
] as const;
const controlMode = optional(z.enum(CONTROL_MODES, `must be one of ${CONTROL_MODES.join(', ')}`));

const MAX_USER_CHARACTERS = 1024;
/** Characters of a user id that are kept as they are, and of the hash that tells it from others. */
const KEPT_CHARACTERS = 80;
const HASH_CHARACTERS = 24;

/**
 * A user id as a part of file names and keys. One with other characters, such as an e-mail address, becomes a safe name: the
 * characters that may stay, and a hash, so that two users never share a name.
 */
export function safeUserName(user: string): string {
  if (NAME.test(user)) return user;
  const kept = user.slice(0, KEPT_CHARACTERS).replace(/[^A-Za-z0-9._:-]/g, '_');
  const hash = createHash('sha256').update(user).digest('hex').slice(0, HASH_CHARACTERS);
  return `${kept}.${hash}`;
}

const userSchema = z.preprocess(
  (value) => (typeof value === 'number' ? String(value) : value),
  z
    .string('must be a string')
    .max(MAX_USER_CHARACTERS, `must be at most ${MAX_USER_CHARACTERS} characters`)
    .regex(
      /^(?!\.{1,2}$)[^/\\\p{Cc}\p{Cs}]+$/u,
      'must be 1 to 120 letters, digits, ".", "_", ":" or "-", or another name without "/", "\\" and control characters',
    ),
);

const configSchema = z.object({
  num_images: uint32,
  seed,
  negative_prompt: text,
  width: uint32,
  height: uint32,
  steps: uint32,
  num_inference_steps: uint32,
  sample_steps: uint32,
  guidance_scale: number,
  guidance_rescale: number,
  sample_guide_scale: number,
  scheduler: text,
  sampling_preset: text,
  frames: uint32,
  frame_num: uint32,
  image: text,
  mask: text,
  mask_blur: number,
  mask_crop_padding: uint32,
  controls: optional(
    z
      .array(
        z.object({
          name: z.string('must be a string'),
          image: text,
          scale: number,
          start: number,
          end: number,
          mode: controlMode,
        }),
      )
      .max(4, 'must have at most 4 entries'),
  ),
  deep_cache_interval: uint32,
  dynamic_thresholding: optional(z.object({ mimic_scale: number, percentile: number })),
  skip_layer_guidance: optional(
    z.object({
      layers: z.array(z.preprocess(numberOf, uint32Schema), 'must be a list').max(64, 'must have at most 64 entries'),
      start: number,
      end: number,
      scale: number,
    }),
  ),
  upscale: optional(z.object({ upscaler: text, factor: number, strength: number, steps: uint32 })),
  control_video: text,
  control_video_scale: number,
  first_frame: text,
  last_frame: text,
  look: text,
  output_format: outputFormat,
});

const metadataSchema = z.object({
  reference_image_url: text,
  reference_type: optional(z.enum(['style', 'composition', 'character'], 'must be style, composition or character')),
  reference_strength: number,
  start_reference_url: text,
  end_reference_url: text,
  traceparent: z.unknown().optional(),
});

const payloadSchema = z.object({
  id: nameSchema,
  type: z.string('must be a string'),
  prompt: z.string('must be a string'),
  user_id: userSchema,
  compel_enabled: optional(z.boolean('must be true or false'), booleanOf),
  compel_weights: text,
  config: optional(configSchema),
  metadata: optional(metadataSchema),
  traceparent: z.unknown().optional(),
});

/** A payload that was read. Unknown fields are only in the raw text. */
export type JobPayload = Readonly<z.infer<typeof payloadSchema>>;

export interface ReadJob {
  readonly kind: 'job';
  readonly payload: JobPayload;
  readonly jobType: JobTypeInfo;
  /** The user and the unknown fields, as far as they fit into a server's labels. */
  readonly labels: Readonly<Record<string, string>>;
  /** Trace that the payload belongs to. Undefined: it names none, or none that can be read. */
  readonly traceparent: string | undefined;
}

export type ReadPayload =
  | ReadJob
  /** It can be called back, but cannot run. The problem names the field. */
  | {
      readonly kind: 'invalid';
      readonly id: string;
      readonly user: string;
      readonly type: string;
      readonly problem: string;
      readonly traceparent: string | undefined;
    }
  /** It has no usable id, so it cannot be called back. */
  | { readonly kind: 'unusable'; readonly problem: string };

export interface ReadOptions {
  readonly jobTypes: JobTypes;
  /** Size of the whole payload, of which `raw` may be the beginning. Omitted: `raw` is the whole payload. */
  readonly bytes?: number;
}

/** Reads a payload. It does not throw, whatever a producer pushes. */
export function readPayload(raw: string, { jobTypes, bytes = Buffer.byteLength(raw) }: ReadOptions): ReadPayload {
  if (bytes > MAX_READ_BYTES) {
    return {
      kind: 'unusable',
      problem: `the payload of ${bytes} bytes must be <= ${MAX_READ_BYTES} to be read at all`,
    };
  }
  const json = parseJson(raw);
  if (json === undefined) return { kind: 'unusable', problem: 'the payload is not JSON' };
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    return { kind: 'unusable', problem: 'the payload is not a JSON object' };
  }
  const { id, user_id, type } = json as Readonly<Record<string, unknown>>;
  const usable = nameSchema.safeParse(id);
  if (!usable.success) {
    return { kind: 'unusable', problem: 'id must be a string of 1 to 120 letters, digits, ".", "_", ":" or "-"' };
  }
  const traceparent = traceparentOf(json);
  const invalid = (problem: string): ReadPayload => ({
    kind: 'invalid',
    id: usable.data,
    user: userSchema.safeParse(user_id).data ?? '',
    type: typeof type === 'string' ? type.slice(0, 64) : '',
    problem,
    traceparent,
  });
  if (bytes > MAX_PAYLOAD_BYTES) return invalid(`the payload of ${bytes} bytes must be <= ${MAX_PAYLOAD_BYTES}`);
  const parsed = payloadSchema.safeParse(json);
  if (!parsed.success)
    return invalid(parsed.error.issues.map((issue) => `${issue.path.join('.')} ${problemOf(issue)}`).join('; '));
  const jobType = jobTypes.get(parsed.data.type);
  if (jobType === undefined) {
    return invalid(`type "${parsed.data.type.slice(0, 64)}" must be one of ${[...jobTypes.keys()].join(', ')}`);
  }
  const labels = labelsFrom(json as Readonly<Record<string, unknown>>);
  return { kind: 'job', payload: parsed.data, jobType, labels, traceparent };
}

/** The `traceparent` of a payload, else that in its metadata. One that cannot be read is no reason to refuse a job. */
function traceparentOf(json: object): string | undefined {
  const { traceparent: own, metadata } = json as { readonly traceparent?: unknown; readonly metadata?: unknown };
  const { traceparent: inner } = (metadata ?? {}) as { readonly traceparent?: unknown };
  return [own, inner].find((value): value is string => parseTraceparent(value) !== undefined);
}

/** The record of a payload without a usable id. */
export function rejectedRecord(queue: string, raw: string, problem: string): string {
  const excerpt = raw.slice(0, MAX_EXCERPT_CHARACTERS);
  return JSON.stringify({ queue, problem, rejected_at: new Date().toISOString(), payload: excerpt });
}

function parseJson(raw: string): unknown {
  try {
    return JSON.parse(raw) ?? null;
  } catch {
    return undefined;
  }
}

function labelsFrom(json: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> {
  const unknown = Object.entries(json).filter(([name]) => name === 'user_id' || !(name in payloadSchema.shape));
  const texts = unknown.flatMap(([name, value]) => {
    const text = typeof value === 'string' ? value : shortJson(value);
    const fits = text !== undefined && Buffer.byteLength(name + text) <= MAX_LABEL_BYTES;
    return fits ? [[name, text] as const] : [];
  });
  return Object.fromEntries(texts.slice(0, MAX_LABELS));
}

function shortJson(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined; // too deep
  }
}
