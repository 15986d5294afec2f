import { AssetRole, type JobMetadata } from '../../gen/darkroom/v1/job.js';
import { version } from '../../version.js';
import type { ReadJob } from '../payload/payload.js';

/** A stored file, as the journal keeps it. */
export interface UploadedFile {
  readonly index: number;
  readonly role: 'result' | 'poster' | 'thumbnail';
  readonly url: string;
  readonly content_type: string;
  readonly size_bytes: number;
  /** Hexadecimal. */
  readonly sha256: string;
  readonly width: number;
  readonly height: number;
}

export function roleName(role: AssetRole): UploadedFile['role'] {
  if (role === AssetRole.ASSET_ROLE_POSTER) return 'poster';
  return role === AssetRole.ASSET_ROLE_THUMBNAIL ? 'thumbnail' : 'result';
}

/** The `metadata` of a completed job's callback without the fields that need the stored files. Values that do not apply are null. */
export function generatedMetadata(
  { payload, jobType }: Pick<ReadJob, 'payload' | 'jobType'>,
  done: JobMetadata,
): Readonly<Record<string, unknown>> {
  const expected = jobType.expectedSeconds(done.numImages);
  const strategy = done.enhancementStrategy ?? 'none';
  const hasWeights = payload.compel_enabled === true && (payload.compel_weights ?? '') !== '';
  return {
    seed: Number(done.seed),
    seeds: done.seeds.map(Number),
    generation_time: round(done.generationSeconds),
    expected_time: expected,
    performance_ratio: expected === 0 ? null : round(done.generationSeconds / expected),
    num_images: done.numImages,
    job_type: payload.type,
    width: done.width,
    height: done.height,
    frames: done.frames ?? null,
    fps: done.fps ?? null,
    steps: done.steps,
    guidance_scale: done.guidanceScale,
    scheduler: done.scheduler,
    compel_enabled: payload.compel_enabled ?? false,
    compel_weights: payload.compel_weights ?? null,
    compel_success: hasWeights ? strategy === 'compel' : null,
    enhancement_strategy: strategy,
    original_prompt: done.originalPrompt,
    enhanced_prompt: done.enhancedPrompt ?? null,
    prompt_problem: done.promptProblem || null,
    final_prompt_type: done.finalPromptType ?? 'string',
    prompt_tokens: done.promptTokens ?? null,
    reference_mode: done.referenceMode ?? 'none',
    reference_applied: done.referenceApplied ?? null,
    reference_method: done.referenceMethod ?? null,
    ...vramFields(done),
    user_id: payload.user_id,
    worker_version: version,
  };
}

/** Memory of a card in GiB, as torch counted it in the old system, and the used share in percent. */
function vramFields({ vramUsedBytes: used, vramTotalBytes: total }: JobMetadata): Readonly<Record<string, unknown>> {
  const gibibytes = (bytes: bigint) => round(Number(bytes) / 2 ** 30);
  const isKnown = used !== undefined && total !== undefined && total > 0n;
  return {
    vram_used_gb: isKnown ? gibibytes(used) : null,
    vram_total_gb: isKnown ? gibibytes(total) : null,
    vram_utilization: isKnown ? round((100 * Number(used)) / Number(total)) : null,
  };
}

/** Adds the fields that need the stored files. */
export function callbackMetadata(
  rendered: Readonly<Record<string, unknown>>,
  files: readonly UploadedFile[],
): Readonly<Record<string, unknown>> {
  const bytes = files.reduce((sum, { size_bytes }) => sum + size_bytes, 0);
  const urlOf = (role: UploadedFile['role']) => files.find((file) => file.role === role)?.url ?? null;
  return {
    ...rendered,
    total_size_mb: round(bytes / 1e6),
    poster_url: urlOf('poster'),
    thumbnail_url: urlOf('thumbnail'),
    files,
    completion_timestamp: new Date().toISOString(),
  };
}

function round(value: number): number {
  return Number(value.toFixed(3));
}
