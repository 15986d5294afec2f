import type { Device, Precision } from '../device.js';
import type { Enhancement, EnhanceRequest, EnhancerInfo, QwenSource, TextEvent } from '../enhancer/enhancer.js';
import type { SerializedError } from '../errors.js';
import type { ImageFormat } from '../media/encode-image.js';
import type { MetadataLevel } from '../media/image-metadata.js';
import type { VideoFormat } from '../media/video-writer.js';
import type {
  BuiltVariants,
  GenerationRequest,
  ModelInfo,
  NetworkPrecision,
  ProgressEvent,
  PromptCacheUse,
  PromptEvent,
} from '../pipelines/pipeline.js';
import type { RuntimeName } from '../runtime/runtime-names.js';

/** Types of one kind of engine: its spec, its jobs, their events and results. */
export interface Work {
  readonly spec: { readonly model: string; readonly engine?: string | undefined };
  /** `unused`: checkpoint keys that no network uses. */
  readonly info: { readonly unused: readonly string[]; readonly precisions?: readonly NetworkPrecision[] };
  readonly job: { readonly jobId: string };
  readonly event: object;
  readonly result: object;
}

/** Engines for images and videos. */
export interface ImageWork extends Work {
  readonly spec: EngineSpec;
  readonly info: ModelInfo;
  readonly job: EngineJob;
  readonly event: EngineEvent;
  readonly result: EngineTimings;
}

/** Engines that enhance prompts. */
export interface TextWork extends Work {
  readonly spec: TextEngineSpec;
  readonly info: EnhancerInfo;
  readonly job: TextEngineJob;
  readonly event: TextEvent;
  readonly result: Enhancement;
}

/** Spec of a text engine process. */
export interface TextEngineSpec {
  readonly model: string;
  readonly family: 'qwen';
  readonly source: QwenSource;
  readonly device: Device;
  /** Index of the card: see `DeviceAddress`. Default: 0. */
  readonly deviceId?: number | undefined;
  /** Threads of a CPU engine; 0 lets the runtime choose. */
  readonly threads: number;
}

export interface TextEngineJob {
  readonly jobId: string;
  readonly request: EnhanceRequest;
}

/** Load progress, 0 to 1. `converting`: the weights are first converted to the file that is loaded. */
export interface LoadProgress {
  readonly stage: 'converting' | 'loading';
  readonly fraction: number;
}

/** Spec of an engine process for images and videos. */
export interface EngineSpec {
  /** Name of the model's family. */
  readonly family: string;
  /** Source of the model in its family's form: plain data. */
  readonly source: object;
  /** Name of the model in requests. */
  readonly model: string;
  /** Name of the engine among all: see `engineName`. */
  readonly engine?: string | undefined;
  readonly device: Device;
  /** Index of the card: see `DeviceAddress`. Default: 0. */
  readonly deviceId?: number | undefined;
  /** Threads of a CPU session; 0 lets the runtime choose. */
  readonly threads: number;
  /** Implementation of sessions. Default: `auto`. */
  readonly runtime?: RuntimeName;
  /** Library of a provider that is loaded in place of the runtime's own. */
  readonly providerLibrary?: string | undefined;
  /** Default: `auto`. */
  readonly precision?: Precision;
  /** True: linear layers of denoisers compute in 8 bits on the CPU, from the folder of `modelCache`. Default: false. */
  readonly quantises?: boolean;
  /** True: see `BackendOptions`. Default: false. */
  readonly fuses?: boolean;
  /** Largest number of pixels of all images that are denoised together. */
  readonly batchPixels: number;
  /** Number of LoRA variants that are kept beside the bare model. Default 1. */
  readonly variants?: number;
  /** Memory of the device that variants leave free, in bytes. Default 0. */
  readonly reserveBytes?: number;
  /** When runs wait for the engine's turn on its device: on a GPU only, or on any device. Default: never. */
  readonly takesTurns?: 'gpu' | 'always' | undefined;
  /** Most memory of the runtime's arena, in bytes: see `SessionDevice`. Default: no limit. */
  readonly memoryLimitBytes?: number | undefined;
  /** False: weights of CPU sessions are used as they are, see `SessionOptions`. Default: true. */
  readonly packsWeights?: boolean;
  /** Cache of prepared weights: see `CacheLimits`. Omitted: none. */
  readonly modelCache?: { readonly folder: string; readonly maxBytes: number } | undefined;
  /** Folder for converted weights: see `OpenOptions`. */
  readonly weightsCache?: string | undefined;
  /** Omitted: decoded images are not checked. */
  readonly imageCheck?: ImageCheckSpec | undefined;
}

/** Name of an engine: its model's, with a number behind it where several engines serve the model. */
export function engineName({ model, engine = model }: Work['spec']): string {
  return engine;
}

/** An operator's classifier of decoded images. */
export interface ImageCheckSpec {
  /** ONNX file; its settings are in a JSON file beside it. */
  readonly path: string;
  /** What happens to an image that cannot be checked: `closed` ends its job, `open` lets it pass. */
  readonly fail: 'closed' | 'open';
  /** Number of frames of a video that are checked. */
  readonly frames: number;
}

/** Format and metadata of the result files. */
export interface OutputOptions {
  readonly format: ImageFormat;
  /** 1 to 100. Default: that of the format. */
  readonly quality?: number;
  /** Amount of metadata in the file. */
  readonly metadata: MetadataLevel;
  /** Settings of a video. Omitted: frames are images. For a video, `format` is its poster's, `quality` also that of an animated WebP. */
  readonly video?: {
    readonly ffmpeg: string;
    readonly format: VideoFormat;
    readonly fps: number;
    readonly crf: number;
  };
}

/** A job as an engine runs it. */
export interface EngineJob {
  readonly jobId: string;
  readonly request: GenerationRequest;
  readonly output: OutputOptions;
}

/**
 * Time that one job took, in ms of wall time inside the engine process. Jobs of a batch share their time: it counts for
 * each of them.
 */
export interface EngineTimings {
  readonly encodeMs: number;
  readonly denoiseMs: number;
  readonly decodeMs: number;
  /** Waiting for the result files: one is encoded while the device goes on to the next image. */
  readonly mediaMs: number;
  /** Build time of the LoRA variant that the job needed. */
  readonly buildMs: number;
  /** Time from receiving the job to its last event. */
  readonly totalMs: number;
  /** Number of images of the whole batch, this job's included. */
  readonly batchImages: number;
  /** Largest resident memory of the process so far, in bytes. */
  readonly peakBytes: number;
  /** Number of denoiser runs, counted per text. Omitted: not counted. */
  readonly forwards?: number;
  /** Measures that were taken because memory ran out, as `JobMetadata` has them. */
  readonly memoryMeasures: readonly string[];
  /** Omitted: not counted. */
  readonly promptCache?: PromptCacheUse;
  /** Variants that the engine holds now. */
  readonly variants: BuiltVariants;
  /** What the networks of the job's variant computed in. */
  readonly precisions: readonly NetworkPrecision[];
  /** The same of the bare model. */
  readonly modelPrecisions: readonly NetworkPrecision[];
}

/** A video comes with a poster of its first frame and a thumbnail. */
export type AssetRole = 'result' | 'poster' | 'thumbnail';

/** Events of a running job. */
export type EngineEvent =
  | PromptEvent
  | ProgressEvent
  | { readonly kind: 'building' }
  /** An image has this label; its job ends. */
  | { readonly kind: 'refused'; readonly label: string }
  /** An image was not checked and passes. */
  | { readonly kind: 'unchecked'; readonly problem: string }
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
  /** The engine's turn on its device came. */
  | { readonly kind: 'turn' }
  /** The answer to `request-memory`. */
  | { readonly kind: 'memory'; readonly request: number; readonly isFreed: boolean }
  | { readonly kind: 'shutdown' };

/** Description of a loaded engine. */
export interface Loaded<W extends Work> {
  readonly info: W['info'];
  /** Provider that the model runs on. */
  readonly device: string;
  /** For `auto`: the better providers that do not open, and the reasons. */
  readonly rejected: readonly { readonly provider: string; readonly detail: string }[];
  /** Implementation of sessions, and why it is not the native one where `auto` would have taken it. Omitted: it has none. */
  readonly runtime?: { readonly name: string; readonly reason?: string | undefined };
}

export type MessageFromEngine<W extends Work = Work> =
  | ({ readonly kind: 'loading' } & LoadProgress)
  | ({ readonly kind: 'ready'; readonly loadMs: number } & Loaded<W>)
  /** Loading failed for good: a missing file, a wrong checkpoint, or a provider that does not open. */
  | { readonly kind: 'start-failed'; readonly error: SerializedError }
  /** A run waits for the engine's turn on its device. */
  | { readonly kind: 'request-turn' }
  /** The run ended, or gave up waiting. */
  | { readonly kind: 'end-turn' }
  /** The description of the model changed: a network that opened later computes in a wider type. */
  | { readonly kind: 'info'; readonly info: W['info'] }
  /** Memory ran out: is there any that something else on the device keeps idle? */
  | { readonly kind: 'request-memory'; readonly request: number }
  | { readonly kind: 'event'; readonly jobId: string; readonly event: W['event'] }
  | { readonly kind: 'done'; readonly jobId: string; readonly result: W['result'] }
  | { readonly kind: 'failed'; readonly jobId: string; readonly error: SerializedError }
  /** Something that the operator has to mend, while the engine goes on. */
  | { readonly kind: 'warning'; readonly problem: string }
  /** A file of the model was replaced after it was loaded: the process runs no more jobs, and wants to be started again. */
  | { readonly kind: 'outdated'; readonly file: string; readonly error: SerializedError };
