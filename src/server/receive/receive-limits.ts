import type { ServiceDefinition, UntypedHandleCall } from '@grpc/grpc-js';
import type { Config } from '../../config/server-config.js';
import { InferenceError } from '../../errors.js';
import type { ServerObserver } from '../observe/server-observer.js';
import { type RepeatedCounts, scanGenerateRequest } from './wire-scan.js';

/** Largest request of any method: references may come as bytes. */
export const MAX_REQUEST_BYTES = 32 * 1024 * 1024;
/** Bytes of a request outside of its texts: labels, LoRAs, numbers. */
const SMALL_BYTES = 128 * 1024;
/** Texts of a request: prompt, negative prompt and weights, and one to spare so that their own check words the error. */
const TEXTS = 4;
/** A request may name more entries than it may have, so that its own check words the error. */
const MAX_COUNTS: Readonly<RepeatedCounts> = { references: 64, loras: 64, labels: 1024 };

/** Fields of a request, those of its messages included: a full one has about 600. */
const MAX_FIELDS = 10_000;
/** A smaller request has too few fields to matter. */
const MIN_SCANNED_BYTES = 16 * 1024;

/** Methods whose requests may carry images. */
const WITH_IMAGES: readonly string[] = [
  '/darkroom.v1.InferenceService/Generate',
  '/darkroom.v1.InferenceService/Estimate',
];

/** A request that was refused before it was decoded; the handler throws its error. */
export class RefusedRequest {
  readonly error: InferenceError;

  constructor(error: InferenceError) {
    this.error = error;
  }
}

/** Largest size of a request without images, in bytes. */
function smallRequestBytes({ LIMIT_PROMPT_BYTES }: Pick<Config, 'LIMIT_PROMPT_BYTES'>): number {
  return SMALL_BYTES + TEXTS * LIMIT_PROMPT_BYTES;
}

/** Largest message that a method receives, in bytes. @param path `/package.Service/Method` */
export function receiveLimit(path: string, config: Pick<Config, 'LIMIT_PROMPT_BYTES'>): number {
  return WITH_IMAGES.includes(path) ? MAX_REQUEST_BYTES : smallRequestBytes(config);
}

/**
 * The definition of a service with requests that are bounded before they are decoded: their size after decompression, their
 * fields, and the entries of repeated fields.
 */
export function boundedService<T>(
  service: ServiceDefinition<T & Record<string, UntypedHandleCall>> | object,
  config: Pick<Config, 'LIMIT_PROMPT_BYTES'>,
  observer: Pick<ServerObserver, 'responseSent'>,
): ServiceDefinition<T & Record<string, UntypedHandleCall>> {
  const definition = service as ServiceDefinition<Record<string, UntypedHandleCall>>;
  const bounded = Object.entries(definition).map(([name, method]) => {
    const deserialize = (bytes: Buffer): unknown => {
      const refusal = refusalOf(method.path, bytes, config);
      if (refusal !== undefined) return new RefusedRequest(refusal);
      try {
        return method.requestDeserialize(bytes);
      } catch {
        return new RefusedRequest(invalid('the request is not a valid protobuf message of this method'));
      }
    };
    const serialize = (response: unknown): Buffer => {
      const bytes = method.responseSerialize(response);
      observer.responseSent(method.path, bytes.length);
      return bytes;
    };
    return [name, { ...method, requestDeserialize: deserialize, responseSerialize: serialize }];
  });
  return Object.fromEntries(bounded) as ServiceDefinition<T & Record<string, UntypedHandleCall>>;
}

function refusalOf(
  path: string,
  bytes: Buffer,
  config: Pick<Config, 'LIMIT_PROMPT_BYTES'>,
): InferenceError | undefined {
  const limit = receiveLimit(path, config);
  if (bytes.length > limit) return tooLarge(bytes.length, limit);
  if (!WITH_IMAGES.includes(path) || bytes.length < MIN_SCANNED_BYTES) return undefined;
  const scan = scanGenerateRequest(path.endsWith('/Estimate') ? innerRequest(bytes) : bytes, MAX_FIELDS);
  if (scan === undefined) return invalid('the request is not a valid protobuf message of this method');
  if (scan.fields > MAX_FIELDS) {
    return invalid(`the request has more than ${MAX_FIELDS} fields, the limit; shorten its lists`);
  }
  for (const [field, count] of Object.entries(scan.counts) as [keyof RepeatedCounts, number][]) {
    if (count > MAX_COUNTS[field])
      return invalid(`${field} has ${count} entries, must have at most ${MAX_COUNTS[field]}`);
  }
  return undefined;
}

/** The `GenerateRequest` inside an `EstimateRequest`: its first field, behind a tag and a length. */
function innerRequest(bytes: Buffer): Buffer {
  let at = 1;
  while (at < bytes.length && (bytes[at] ?? 0) >= 0x80) at += 1;
  return bytes.subarray(at + 1);
}

/** The error of a request that is too large. */
export function tooLarge(bytes: number, limit: number): InferenceError {
  return new InferenceError(
    'REQUEST_TOO_LARGE',
    `the request has ${bytes} bytes, must have at most ${limit}; send smaller images or shorter texts`,
  );
}

function invalid(message: string): InferenceError {
  return new InferenceError('INVALID_REQUEST', message);
}
