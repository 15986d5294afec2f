import { createHash } from 'node:crypto';
import { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';

/** Equal for equal bodies, whatever their id: what makes a job id an idempotency key. */
export function hashRequest(request: GenerateRequest): string {
  const labels = Object.fromEntries(Object.entries(request.labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256')
    .update(GenerateRequest.encode({ ...request, jobId: '', labels }).finish())
    .digest('hex');
}
