import type { Config } from '../../config/server-config.js';
import { InferenceError } from '../../errors.js';
import type { MessageShape } from './message-shapes.js';
import type { ScanProblem } from './wire-scan.js';

/** Largest request of any method: references may come as bytes. */
export const MAX_REQUEST_BYTES = 32 * 1024 * 1024;
/** Bytes of a request outside of its texts: labels, LoRAs, numbers. */
const SMALL_BYTES = 128 * 1024;
/** Texts of a request: prompt, negative prompt and weights, and one to spare so that their own check words the error. */
const TEXTS = 4;
/** Fields of a request, those of its messages included: a full one has about 600. */
const MAX_FIELDS = 10_000;

/** Methods whose requests may carry images. */
const WITH_IMAGES: readonly string[] = [
  '/darkroom.v1.InferenceService/Generate',
  '/darkroom.v1.InferenceService/Estimate',
];

const NO_MESSAGES: MessageShape = new Map();

/** What a request may be before it is decoded. */
export interface RequestBounds {
  /** Size, also after decompression. */
  readonly maxBytes: number;
  /** Fields, those of its messages included. */
  readonly maxFields: number;
  readonly shape: MessageShape;
}

/** @param path `/package.Service/Method` */
export function requestBounds(
  path: string,
  shapes: ReadonlyMap<string, MessageShape>,
  { LIMIT_PROMPT_BYTES }: Pick<Config, 'LIMIT_PROMPT_BYTES'>,
): RequestBounds {
  return {
    maxBytes: WITH_IMAGES.includes(path) ? MAX_REQUEST_BYTES : SMALL_BYTES + TEXTS * LIMIT_PROMPT_BYTES,
    maxFields: MAX_FIELDS,
    shape: shapes.get(path) ?? NO_MESSAGES,
  };
}

export function tooLarge(bytes: number, limit: number): InferenceError {
  return new InferenceError(
    'REQUEST_TOO_LARGE',
    `the request has ${bytes} bytes, must have at most ${limit}; send smaller images or shorter texts`,
  );
}

export function undecodable(): InferenceError {
  return new InferenceError('INVALID_REQUEST', 'the request is not a valid protobuf message of this method');
}

export function refusalOf(problem: ScanProblem, { maxFields }: RequestBounds): InferenceError {
  if (problem === 'malformed') return undecodable();
  return new InferenceError(
    'INVALID_REQUEST',
    `the request has more than ${maxFields} fields, the limit; shorten its lists`,
  );
}
