import type { ErrorReason, InferenceError } from '../../errors.js';

const INVALID = 'Invalid parameters: ';
const FAILED = 'Generation failed: ';
/** What the caller can mend. */
const CALLERS: readonly ErrorReason[] = ['INVALID_REQUEST', 'REFERENCE_INVALID', 'POLICY'];

/** The sentence of a `failed` callback: callers match on how it begins. */
export function callerMessage({ reason, message }: Pick<InferenceError, 'reason' | 'message'>): string {
  if (reason === 'OUT_OF_MEMORY') return 'Insufficient VRAM for generation';
  const prefix = CALLERS.includes(reason) ? INVALID : FAILED;
  return message.startsWith(INVALID) || message.startsWith(FAILED) ? message : `${prefix}${message}`;
}
