/** Payloads that one look takes from a list: what one script call may do without holding up others. */
export const MAX_PAYLOADS_PER_POLL = 32;
/** Bytes of them together. */
export const MAX_BYTES_PER_POLL = 4 * 1024 * 1024;
/** A payload is read to find its id up to here; of a longer one nobody knows whose it is. */
export const MAX_READ_BYTES = 32 * 1024 * 1024;
/** Longest payload that is run: prompts of 16 KB and some URLs fit many times. */
export const MAX_PAYLOAD_BYTES = 1024 * 1024;
/** Payloads without an id that are kept, the newest ones. */
export const MAX_REJECTED = 10_000;
/** Of a rejected payload, what its record shows. */
export const MAX_EXCERPT_CHARACTERS = 1000;
/** How long a frontend finds the progress of a job after its last change. */
export const PROGRESS_MS = 3_600_000;
/** How long a cancel waits for a job that has not come yet. */
export const CANCEL_KEEP_MS = 86_400_000;
/** Labels that a server takes with a job, and the bytes of each: docs/reference/limits.md. */
export const MAX_LABELS = 64;
export const MAX_LABEL_BYTES = 1024;
