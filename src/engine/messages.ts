import type { Device } from '../device.js';
import type { Enhancement, EnhanceRequest, EnhancerInfo, QwenSource, TextEvent } from '../enhancer/enhancer.js';
import type { SerializedError } from '../errors.js';
import type { ImageFormat } from '../media/encode-image.js';
import type { MetadataLevel } from '../media/image-metadata.js';
import type { ClipFormat } from '../media/video-writer.js';
import type { BuiltVariants, GenerationRequest, ModelInfo, ProgressEvent, PromptEvent } from '../pipelines/pipeline.js';

/** What one kind of engine does: what it loads, its jobs, what these tell while they run, and what each ends with. */
export interface Work {
  readonly spec: { readonly model: string };
  /** `unused`: keys of the checkpoint that are not used. */
  readonly info: { readonly unused: readonly string[] };
  readonly job: { readonly jobId: string };
  readonly event: object;
  readonly result: object;
}

/** Pictures and clips. */
export interface ImageWork extends Work {
  readonly spec: EngineSpec;
  readonly info: ModelInfo;
  readonly job: EngineJob;
  readonly event: EngineEvent;
  readonly result: EngineTimings;
}

/** Prompts that are enhanced. */
export interface TextWork extends Work {
  readonly spec: TextEngineSpec;
  readonly info: EnhancerInfo;
  readonly job: TextEngineJob;
  readonly event: TextEvent;
  readonly result: Enhancement;
}

/** What a text engine process is told to load. */
export interface TextEngineSpec {
  readonly model: string;
  readonly family: 'qwen';
  readonly source: QwenSource;
  readonly device: Device;
  /** Threads of a CPU engine; 0 lets the runtime choose. */
  readonly threads: number;
}

export interface TextEngineJob {
  readonly jobId: string;
  readonly request: EnhanceRequest;
}

/** How far a model's loading is, 0 to 1; `converting`: its weights are first written as the file that is loaded. */
export interface LoadProgress {
  readonly stage: 'converting' | 'loading';
  readonly fraction: number;
}

/** What an engine process loads. */
export interface EngineSpec {
  /** Name of the model's family. */
  readonly family: string;
  /** Where the model comes from, as its family has it: plain data. */
  readonly source: object;
  /** The name clients use for the model. */
  readonly model: string;
  readonly device: Device;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
  /** Pixels of all pictures that are denoised together. */
  readonly batchPixels: number;
  /** Variants with LoRAs that are kept beside the bare model. Omitted: 1. */
  readonly variants?: number;
  /** Memory of the device that they leave free. Omitted: 0. */
  readonly reserveBytes?: number;
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
  /** Building the variant of the model that it needed. */
  readonly buildMs: number;
  /** From taking the job to its last event. */
  readonly totalMs: number;
  /** Pictures of all jobs that ran together, this one's included. */
  readonly batchImages: number;
  /** Most resident memory of the process so far. */
  readonly peakBytes: number;
  /** Runs of the denoiser over one text; omitted, they were not counted. */
  readonly forwards?: number;
  /** Of the model, as they are now. */
  readonly variants: BuiltVariants;
}

/** A clip comes with a picture of its first frame and a small one of it. */
export type AssetRole = 'result' | 'poster' | 'thumbnail';

/** What a running job tells. */
export type EngineEvent =
  | PromptEvent
  | ProgressEvent
  | { readonly kind: 'building' }
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

export type MessageToEngine<W extends Work = Work> =
  | { readonly kind: 'start'; readonly spec: W['spec'] }
  | { readonly kind: 'run'; readonly jobs: readonly W['job'][] }
  | { readonly kind: 'cancel'; readonly jobId: string }
  | { readonly kind: 'shutdown' };

/** What a loaded engine says of itself. */
export interface Loaded<W extends Work> {
  readonly info: W['info'];
  /** Provider that it runs on. */
  readonly device: string;
  /** Of `auto`: the better providers that do not open, and why. */
  readonly rejected: readonly { readonly provider: string; readonly detail: string }[];
}

export type MessageFromEngine<W extends Work = Work> =
  | ({ readonly kind: 'loading' } & LoadProgress)
  | ({ readonly kind: 'ready'; readonly loadMs: number } & Loaded<W>)
  /** Loading failed for good: a missing file, a wrong checkpoint, a provider that does not open. */
  | { readonly kind: 'start-failed'; readonly error: SerializedError }
  | { readonly kind: 'event'; readonly jobId: string; readonly event: W['event'] }
  | { readonly kind: 'done'; readonly jobId: string; readonly result: W['result'] }
  | { readonly kind: 'failed'; readonly jobId: string; readonly error: SerializedError };
