import { wellFormed } from '../../std/well-formed.js';

/** `OrtErrorCode`, by value. https://github.com/microsoft/onnxruntime/blob/v1.30.0/include/onnxruntime/core/session/onnxruntime_error_code.h */
export const ortErrorCodes = [
  'OK',
  'FAIL',
  'INVALID_ARGUMENT',
  'NO_SUCHFILE',
  'NO_MODEL',
  'ENGINE_ERROR',
  'RUNTIME_EXCEPTION',
  'INVALID_PROTOBUF',
  'MODEL_LOADED',
  'NOT_IMPLEMENTED',
  'INVALID_GRAPH',
  'EP_FAIL',
  'MODEL_LOAD_CANCELED',
  'MODEL_REQUIRES_COMPILATION',
  'NOT_FOUND',
] as const;
export type OrtErrorCode = (typeof ortErrorCodes)[number];

/** A message may list all nodes of a graph, or end in a stack trace. */
const MAX_CHARACTERS = 1000;

/** Where in its sources the runtime failed. */
const PLACE = /^\/onnxruntime_src\/.*?\[ONNXRuntimeError\] : \d+ : \w+ : /;

/** An error that ONNX Runtime returned: its code, and its message as one bounded line. */
export class OrtError extends Error {
  readonly code: OrtErrorCode;

  constructor(code: OrtErrorCode, message: string) {
    super(wellFormed(message.replace(/\s+/g, ' ').replace(PLACE, '').trim(), MAX_CHARACTERS));
    this.name = 'OrtError';
    this.code = code;
  }
}
