import type { ErrorReason, InferenceError } from '../../errors.js';

const INVALID = 'Invalid parameters: ';
const FAILED = 'Generation failed: ';
/** Reasons that the caller can fix. */
const CALLER_REASONS: readonly ErrorReason[] = ['INVALID_REQUEST', 'REFERENCE_INVALID', 'POLICY'];

/** The `error_message` of a `failed` callback. Callers match on its beginning. */
export function callbackMessage({ reason, message }: Pick<InferenceError, 'reason' | 'message'>): string {
  if (reason === 'OUT_OF_MEMORY') return 'Insufficient VRAM for generation';
  const prefix = CALLER_REASONS.includes(reason) ? INVALID : FAILED;
  return message.startsWith(INVALID) || message.startsWith(FAILED) ? message : `${prefix}${message}`;
}
