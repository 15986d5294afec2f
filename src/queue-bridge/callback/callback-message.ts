import type { ErrorReason, InferenceError } from '../../errors.js';

const INVALID = 'Invalid parameters: ';
const FAILED = 'Generation failed: ';
/** What the caller can mend. */
const CALLER_REASONS: readonly ErrorReason[] = ['INVALID_REQUEST', 'REFERENCE_INVALID', 'POLICY'];

/** The sentence of a `failed` callback: callers match on how it begins. */
export function callbackMessage({ reason, message }: Pick<InferenceError, 'reason' | 'message'>): string {
  if (reason === 'OUT_OF_MEMORY') return 'Insufficient VRAM for generation';
  const prefix = CALLER_REASONS.includes(reason) ? INVALID : FAILED;
  return message.startsWith(INVALID) || message.startsWith(FAILED) ? message : `${prefix}${message}`;
}
