import type { InferenceError } from '../../errors.js';
import { httpStatus } from '../http-errors.js';

/** An error as OpenAI's API sends it. https://platform.openai.com/docs/guides/error-codes */
export interface OpenaiError {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

/** Codes that clients of OpenAI know, by darkroom's reasons; others are darkroom's own in lower case. */
const CODES: Readonly<Record<string, string>> = {
  UNAUTHENTICATED: 'invalid_api_key',
  MODEL_NOT_FOUND: 'model_not_found',
  POLICY: 'content_policy_violation',
  RATE_LIMITED: 'rate_limit_exceeded',
  QUEUE_FULL: 'rate_limit_exceeded',
  QUOTA_EXCEEDED: 'insufficient_quota',
};

/** OpenAI's parameters, by darkroom's fields. */
const PARAMS: Readonly<Record<string, string>> = {
  width: 'size',
  height: 'size',
  num_images: 'n',
  references: 'image',
};

/** OpenAI's parameters of reasons that name no field. */
const REASON_PARAMS: Readonly<Record<string, string>> = { MODEL_NOT_FOUND: 'model', REFERENCE_INVALID: 'image' };

export function openaiError(error: InferenceError): OpenaiError {
  const [violation] = error.violations;
  const field = violation?.field.replace(/[[.].*$/, '') ?? '';
  return {
    error: {
      message: error.message,
      type: typeOf(httpStatus(error)),
      param: field === '' ? (REASON_PARAMS[error.reason] ?? null) : (PARAMS[field] ?? field),
      code: CODES[error.reason] ?? error.reason.toLowerCase(),
    },
  };
}

function typeOf(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status < 500 ? 'invalid_request_error' : 'server_error';
}
