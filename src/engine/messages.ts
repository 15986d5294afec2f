import type { SerializedError } from '../errors.js';
import type { ClipFormat } from '../media/clip-writer.js';
import type { ImageFormat } from '../media/encode-image.js';
import type { MetadataLevel } from '../media/image-metadata.js';
import type { Device, GenerationRequest, ModelInfo, ProgressEvent, PromptEvent } from '../pipelines/pipeline.js';
import type { SdxlSource } from '../pipelines/sdxl/checkpoint.js';
import type { WanSource } from '../pipelines/wan/checkpoint.js';

/** What an engine process is told to load. */
export type EngineSpec = EngineBasics & CheckpointOfFamily;

/** The checkpoint, and what goes with it. */
export type CheckpointOfFamily =
  | { readonly family: 'sdxl'; readonly source: SdxlSource }
  | { readonly family: 'wan'; readonly source: WanSource };

interface EngineBasics {
  /** The name clients use for the model. */
  readonly model: string;
  readonly device: Device;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
  /** Pixels of all pictures that are denoised together. */
  readonly batchPixels: number;
}

/** How finished pictures become files. */
export interface OutputOptions {
  readonly format: ImageFormat;
  /** 1 to 100; omitted, the format's default. */
  readonly quality?: number;
  /** What the file says about itself. */
  readonly metadata: MetadataLevel;
  /** Of a clip; omitted, frames are pictures. `format` and `quality` are then those of its poster. */
  readonly clip?: { readonly ffmpeg: string; readonly format: ClipFormat; readonly fps: number; readonly crf: number };
}

/** A job as an engine runs it. */
export interface EngineJob {
  readonly jobId: string;
  readonly request: GenerationRequest;
  readonly output: OutputOptions;
}

/**
 * What one job spent, in milliseconds of wall time inside the engine process. Jobs that run together share their time: it
 * counts for each of them.
 */
export interface EngineTimings {
  readonly encodeMs: number;
  readonly denoiseMs: number;
  readonly decodeMs: number;
  /** Encoding the pictures as files. */
  readonly mediaMs: number;
  /** From taking the job to its last event. */
  readonly totalMs: number;
  /** Pictures of all jobs that ran together, this one's included. */
  readonly batchImages: number;
  /** Most resident memory of the process so far. */
  readonly peakBytes: number;
  /** Runs of the denoiser over one text; omitted, they were not counted. */
  readonly forwards?: number;
}

/** A clip comes with a picture of its first frame and a small one of it. */
export type AssetRole = 'result' | 'poster' | 'thumbnail';

/** What a running job tells. */
export type EngineEvent =
  | PromptEvent
  | ProgressEvent
  | { readonly kind: 'preview'; readonly index: number; readonly contentType: string; readonly bytes: Uint8Array }
  | {
      readonly kind: 'asset';
      readonly role: AssetRole;
      readonly index: number;
      readonly seed: number;
      readonly width: number;
      readonly height: number;
      readonly contentType: string;
      readonly bytes: Uint8Array;
    };

export type MessageToEngine =
  | { readonly kind: 'start'; readonly spec: EngineSpec }
  /** Jobs that run together, at most one such message at a time. */
  | { readonly kind: 'run'; readonly jobs: readonly EngineJob[] }
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
