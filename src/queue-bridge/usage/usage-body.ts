import { version } from '../../version.js';

/** Body of a usage record: what one run of a job took, and what it made. Values that do not apply are null. */
export interface UsageBody {
  readonly job_id: string;
  /** 1, and 1 more for each replay. */
  readonly run: number;
  /** Attempts that were made at the run. */
  readonly attempts: number;
  /** Bridge that ended the job: host, process, a random part. */
  readonly worker_id: string;
  readonly worker_version: string;
  /** Address of the server that ran it. */
  readonly server: string | null;
  readonly job_type: string;
  readonly user_id: string;
  readonly success: boolean;
  /** A reason of docs/reference/errors.md. */
  readonly error_type: string | null;
  /** Seconds of work on the server. */
  readonly generation_time: number | null;
  /** Memory of the card at the end of the denoising, in GiB. */
  readonly vram_used_gb: number | null;
  readonly vram_total_gb: number | null;
  /** Largest resident memory of the engine process so far, in GiB. */
  readonly engine_peak_gb: number | null;
  /** URLs of the results. */
  readonly assets: readonly string[];
  /** Size of all files, in millions of bytes. */
  readonly total_size_mb: number | null;
  /** End of the job, ISO 8601. */
  readonly timestamp: string;
}

export type JobUsage = Pick<UsageBody, 'job_id' | 'run' | 'attempts' | 'worker_id' | 'server' | 'job_type' | 'user_id'>;

/** @param metadata of the job's callback */
export function completedUsage(
  job: JobUsage,
  metadata: Readonly<Record<string, unknown>>,
  { assets, enginePeakBytes }: { readonly assets: readonly string[]; readonly enginePeakBytes: number | undefined },
): string {
  const number = (name: string) => (typeof metadata[name] === 'number' ? metadata[name] : null);
  return json({
    ...job,
    success: true,
    error_type: null,
    generation_time: number('generation_time'),
    vram_used_gb: number('vram_used_gb'),
    vram_total_gb: number('vram_total_gb'),
    engine_peak_gb: enginePeakBytes === undefined ? null : Number((enginePeakBytes / 2 ** 30).toFixed(3)),
    assets,
    total_size_mb: number('total_size_mb'),
  });
}

/** @param reason of docs/reference/errors.md */
export function failedUsage(job: JobUsage, reason: string): string {
  return json({
    ...job,
    success: false,
    error_type: reason,
    generation_time: null,
    vram_used_gb: null,
    vram_total_gb: null,
    engine_peak_gb: null,
    assets: [],
    total_size_mb: null,
  });
}

function json(body: Omit<UsageBody, 'worker_version' | 'timestamp'>): string {
  return JSON.stringify({ ...body, worker_version: version, timestamp: new Date().toISOString() });
}
