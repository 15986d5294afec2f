import type { SerializedError } from '../errors.js';
import type { Device, ImageRequest, ModelInfo, Phase } from '../pipelines/pipeline.js';

/** What an engine process is told to load. */
export interface EngineSpec {
  /** The name clients use for the model. */
  readonly model: string;
  /** A diffusers-layout folder. */
  readonly path: string;
  readonly device: Device;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
}

/** What one job spent, in milliseconds of wall time inside the engine process. */
export interface EngineTimings {
  readonly encodeMs: number;
  readonly denoiseMs: number;
  readonly decodeMs: number;
  /** Encoding the pictures as files. */
  readonly mediaMs: number;
  /** From taking the job to its last event. */
  readonly totalMs: number;
}

/** What a running job tells. */
export type EngineEvent =
  | { readonly kind: 'progress'; readonly phase: Phase; readonly step: number; readonly total: number }
  | {
      readonly kind: 'asset';
      readonly index: number;
      readonly seed: number;
      readonly width: number;
      readonly height: number;
      readonly contentType: string;
      readonly bytes: Uint8Array;
    };

export type MessageToEngine =
  | { readonly kind: 'start'; readonly spec: EngineSpec }
  | { readonly kind: 'run'; readonly jobId: string; readonly request: ImageRequest }
  | { readonly kind: 'cancel'; readonly jobId: string }
  | { readonly kind: 'shutdown' };

export type MessageFromEngine =
  | {
      readonly kind: 'ready';
      readonly info: ModelInfo;
      readonly device: Exclude<Device, 'auto'>;
      /** Of `auto`: the better providers that do not open, and why. */
      readonly rejected: readonly { readonly provider: string; readonly detail: string }[];
      readonly loadMs: number;
    }
  /** Loading failed for good: a missing file, a wrong checkpoint, a provider that does not open. */
  | { readonly kind: 'start-failed'; readonly error: SerializedError }
  | { readonly kind: 'event'; readonly jobId: string; readonly event: EngineEvent }
  | { readonly kind: 'done'; readonly jobId: string; readonly timings: EngineTimings }
  | { readonly kind: 'failed'; readonly jobId: string; readonly error: SerializedError };
