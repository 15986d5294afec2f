import { wellFormed } from './std/well-formed.js';

/** gRPC status codes that darkroom returns. https://grpc.io/docs/guides/status-codes/ */
export const statusCodes = {
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const;

export type StatusName = keyof typeof statusCodes;

/**
 * Every error reason, with its gRPC status and whether a retry of the same request may succeed.
 * `docs/reference/errors.md` has an entry for each; a test compares the two.
 */
export const errorReasons = {
  INVALID_REQUEST: { status: 'INVALID_ARGUMENT', retryable: false },
  REFERENCE_INVALID: { status: 'INVALID_ARGUMENT', retryable: false },
  REFERENCE_UNAVAILABLE: { status: 'UNAVAILABLE', retryable: true },
  REFERENCE_NEEDED: { status: 'FAILED_PRECONDITION', retryable: false },
  MODEL_NOT_FOUND: { status: 'NOT_FOUND', retryable: false },
  LORA_NOT_FOUND: { status: 'NOT_FOUND', retryable: false },
  EMBEDDING_NOT_FOUND: { status: 'NOT_FOUND', retryable: false },
  CONTROLNET_NOT_FOUND: { status: 'NOT_FOUND', retryable: false },
  UPSCALER_NOT_FOUND: { status: 'NOT_FOUND', retryable: false },
  JOB_NOT_FOUND: { status: 'NOT_FOUND', retryable: false },
  JOB_ID_CONFLICT: { status: 'ALREADY_EXISTS', retryable: false },
  REQUEST_TOO_LARGE: { status: 'RESOURCE_EXHAUSTED', retryable: false },
  SERVER_BUSY: { status: 'RESOURCE_EXHAUSTED', retryable: true },
  QUEUE_FULL: { status: 'RESOURCE_EXHAUSTED', retryable: true },
  RATE_LIMITED: { status: 'RESOURCE_EXHAUSTED', retryable: true },
  QUOTA_EXCEEDED: { status: 'RESOURCE_EXHAUSTED', retryable: false },
  OUT_OF_MEMORY: { status: 'RESOURCE_EXHAUSTED', retryable: false },
  MACHINE_EXHAUSTED: { status: 'UNAVAILABLE', retryable: true },
  DRAINING: { status: 'UNAVAILABLE', retryable: true },
  ENGINE_STARTING: { status: 'UNAVAILABLE', retryable: true },
  NOT_FINITE: { status: 'INTERNAL', retryable: false },
  ENGINE_CRASHED: { status: 'UNAVAILABLE', retryable: true },
  ENGINE_HUNG: { status: 'UNAVAILABLE', retryable: true },
  STORAGE_FAILED: { status: 'UNAVAILABLE', retryable: true },
  UNREACHABLE: { status: 'UNAVAILABLE', retryable: true },
  CHECKPOINT_INVALID: { status: 'FAILED_PRECONDITION', retryable: false },
  MODEL_UNSUPPORTED: { status: 'FAILED_PRECONDITION', retryable: false },
  PROVIDER_UNAVAILABLE: { status: 'FAILED_PRECONDITION', retryable: false },
  LLAMA_MISSING: { status: 'FAILED_PRECONDITION', retryable: false },
  ENHANCEMENT_EMPTY: { status: 'INTERNAL', retryable: true },
  FFMPEG_MISSING: { status: 'FAILED_PRECONDITION', retryable: false },
  ENCODING_FAILED: { status: 'INTERNAL', retryable: true },
  POLICY_UNAVAILABLE: { status: 'UNAVAILABLE', retryable: true },
  POLICY: { status: 'FAILED_PRECONDITION', retryable: false },
  CANCELLED: { status: 'CANCELLED', retryable: false },
  DEADLINE_EXCEEDED: { status: 'DEADLINE_EXCEEDED', retryable: false },
  UNAUTHENTICATED: { status: 'UNAUTHENTICATED', retryable: false },
  PERMISSION_DENIED: { status: 'PERMISSION_DENIED', retryable: false },
  INTERNAL: { status: 'INTERNAL', retryable: false },
} as const satisfies Record<string, { status: StatusName; retryable: boolean }>;

export type ErrorReason = keyof typeof errorReasons;

/** One bad field of a request: its path in the proto, and one sentence with value, bound and remedy. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

export interface InferenceErrorOptions {
  readonly cause?: unknown;
  /** All bad fields of a request, reported together. */
  readonly violations?: readonly FieldViolation[];
  /** Delay after which a retry makes sense, in ms. Omitted: none is sent to the client. */
  readonly retryAfterMs?: number | undefined;
  /** Values of the message for programs, by name: `limit`, for example. They are sent as `ErrorInfo.metadata`. */
  readonly info?: Readonly<Record<string, string>>;
}

/** An InferenceError as plain data, to cross a process boundary. */
export interface SerializedError {
  readonly reason: ErrorReason;
  readonly message: string;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number;
}

/** Messages may quote names of a file or a request; more than this helps nobody. */
const MAX_MESSAGE_CHARACTERS = 16_384;

/**
 * The one error type of darkroom: a reason of the closed list, and a sentence that names field, value, bound and
 * remedy.
 */
export class InferenceError extends Error {
  readonly reason: ErrorReason;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;
  readonly info: Readonly<Record<string, string>>;

  constructor(reason: ErrorReason, message: string, options: InferenceErrorOptions = {}) {
    super(
      wellFormed(message, MAX_MESSAGE_CHARACTERS),
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = 'InferenceError';
    this.reason = reason;
    this.violations = options.violations ?? [];
    this.retryAfterMs = options.retryAfterMs;
    this.info = options.info ?? {};
  }

  get status(): StatusName {
    return errorReasons[this.reason].status;
  }

  get retryable(): boolean {
    return errorReasons[this.reason].retryable;
  }

  toJSON(): SerializedError {
    return {
      reason: this.reason,
      message: this.message,
      ...(this.violations.length > 0 && { violations: this.violations }),
      ...(this.retryAfterMs !== undefined && { retryAfterMs: this.retryAfterMs }),
    };
  }

  static fromJSON(error: SerializedError): InferenceError {
    return new InferenceError(error.reason, error.message, error);
  }

  /** Turns anything caught into an InferenceError. Other errors become INTERNAL with the original as cause. */
  static from(error: unknown): InferenceError {
    if (error instanceof InferenceError) return error;
    const message = error instanceof Error ? error.message : String(error);
    const exhausted = exhaustedResource(error);
    if (exhausted !== undefined) {
      return new InferenceError('MACHINE_EXHAUSTED', `this machine has no ${exhausted}: ${message}`, {
        cause: error,
        retryAfterMs: EXHAUSTED_RETRY_MS,
      });
    }
    return new InferenceError('INTERNAL', message, { cause: error });
  }
}

/** A fault of a file that a request brings or names. The message says "the reference" until somebody knows which file it is. */
export class FileError extends InferenceError {
  readonly #sentence: (file: string) => string;

  /** @param sentence the message for a file of that name */
  constructor(
    reason: 'REFERENCE_INVALID' | 'REFERENCE_UNAVAILABLE',
    sentence: (file: string) => string,
    options: InferenceErrorOptions = {},
  ) {
    super(reason, sentence('the reference'), options);
    this.#sentence = sentence;
  }

  /** The same fault of the file that it is: "the mask". */
  of(file: string): InferenceError {
    return new InferenceError(this.reason, this.#sentence(file), { retryAfterMs: this.retryAfterMs, cause: this });
  }
}

/** System errors of a machine that ran out of something: no fault of the job, and likely to pass. */
const EXHAUSTED: Readonly<Record<string, string>> = {
  ENOSPC: 'free disk space',
  EDQUOT: 'disk quota left',
  EMFILE: 'free file descriptor',
  ENFILE: 'free file descriptor',
  EROFS: 'writable file system',
};
const EXHAUSTED_RETRY_MS = 5000;

/** The resource that an error or one of its causes says is exhausted; undefined for other errors. */
export function exhaustedResource(error: unknown): string | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth += 1) {
    const { code } = at as NodeJS.ErrnoException;
    if (typeof code === 'string' && Object.hasOwn(EXHAUSTED, code)) return EXHAUSTED[code];
  }
  return undefined;
}

/** The problems of a checkpoint or a request as one list, at most `limit` of them in full. */
export function listProblems(problems: readonly string[], limit = 12): string {
  const shown = problems.slice(0, limit).map((problem) => `  - ${problem}`);
  if (problems.length > limit) shown.push(`  - and ${problems.length - limit} more`);
  return shown.join('\n');
}
