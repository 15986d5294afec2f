/** Largest number of payloads that one poll takes from a list. A script blocks Redis while it runs. */
export const MAX_PAYLOADS_PER_POLL = 32;
/** Bytes of these payloads together. */
export const MAX_BYTES_PER_POLL = 4 * 1024 * 1024;
/** Longest payload that is read to find its id. A longer one is rejected without an id. */
export const MAX_READ_BYTES = 32 * 1024 * 1024;
/** Longest payload that is run. Prompts of 16 KB and some URLs fit many times. */
export const MAX_PAYLOAD_BYTES = 1024 * 1024;
/** Number of rejected payloads that are kept, the newest ones. */
export const MAX_REJECTED = 10_000;
/** Length of a rejected payload's excerpt in its record. */
export const MAX_EXCERPT_CHARACTERS = 1000;
/** Time that the progress of a job is kept after its last change. */
export const PROGRESS_MS = 3_600_000;
/** Time that a cancel is kept for a job that has not come yet. */
export const CANCEL_KEEP_MS = 86_400_000;
/** Largest number of a job's labels, and the bytes of each, on a server: docs/reference/limits.md. */
export const MAX_LABELS = 64;
export const MAX_LABEL_BYTES = 1024;
