import { turnOffTelemetry } from '../environment.js';

/** The binding, loaded when it is first needed: a process that uses the C API does not load it. */
export function importBinding(): Promise<typeof import('onnxruntime-node')> {
  turnOffTelemetry();
  return import('onnxruntime-node');
}
