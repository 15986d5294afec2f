import { createHash } from 'node:crypto';
import { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';

/** Equal for equal bodies, whatever their id: what makes a job id an idempotency key. */
export function hashRequest(request: GenerateRequest): string {
  const labels = Object.fromEntries(Object.entries(request.labels).sort(([a], [b]) => (a < b ? -1 : 1)));
  const body = withHashedFiles({ ...request, jobId: '', labels }) as GenerateRequest;
  return createHash('sha256').update(GenerateRequest.encode(body).finish()).digest('hex');
}

/** A message with each file replaced by its hash: to copy a video of 20 MiB takes three times as long as to hash it. */
function withHashedFiles(value: unknown): unknown {
  if (value instanceof Uint8Array) return createHash('sha256').update(value).digest();
  if (Array.isArray(value)) return value.map(withHashedFiles);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, withHashedFiles(field)]));
}
