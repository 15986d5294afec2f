import { version } from '../../version.js';

/** The body of a callback: exactly these five fields. */
export interface CallbackBody {
  readonly job_id: string;
  readonly status: 'processing' | 'completed' | 'failed';
  /** URLs of the results, in order. */
  readonly assets: readonly string[];
  readonly error_message: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export function processingBody(
  jobId: string,
  { type, user }: { readonly type: string; readonly user: string },
): string {
  return json({
    job_id: jobId,
    status: 'processing',
    assets: [],
    error_message: null,
    metadata: { job_type: type, user_id: user, worker_version: version },
  });
}

export function completedBody(
  jobId: string,
  assets: readonly string[],
  metadata: Readonly<Record<string, unknown>>,
): string {
  return json({ job_id: jobId, status: 'completed', assets, error_message: null, metadata });
}

/** @param reason of docs/reference/errors.md */
export function failedBody(
  jobId: string,
  { reason, message }: { readonly reason: string; readonly message: string },
): string {
  return json({
    job_id: jobId,
    status: 'failed',
    assets: [],
    error_message: message,
    metadata: { error_type: reason, error_timestamp: new Date().toISOString(), worker_version: version },
  });
}

function json(body: CallbackBody): string {
  return JSON.stringify(body);
}
