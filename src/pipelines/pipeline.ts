/** What every model family offers: an async generator over many short engine runs, and a description of the model. */

/** Where a session runs. `auto` takes the best provider that really opens. */
export const devices = ['auto', 'cuda', 'tensorrt', 'webgpu', 'cpu'] as const;
export type Device = (typeof devices)[number];

export type Phase = 'encode' | 'denoise' | 'decode';

export type PipelineEvent =
  /** `step` of `total` runs of this phase are done. */
  | { readonly kind: 'progress'; readonly phase: Phase; readonly step: number; readonly total: number }
  /** One finished picture. `rgb` is row-major uint8 [height, width, 3]. */
  | {
      readonly kind: 'image';
      readonly index: number;
      readonly seed: number;
      readonly width: number;
      readonly height: number;
      readonly rgb: Uint8Array;
    };

/** What a loaded or inspected model is. */
export interface ModelInfo {
  readonly family: 'sdxl';
  /** Of all networks together. */
  readonly parameters: number;
  /** Bytes of weights on disk. */
  readonly weightBytes: number;
  /** Storage type of the largest network: F16, BF16 or F32. */
  readonly storage: string;
  readonly predictionType: string;
  readonly schedulers: readonly string[];
  /** Width and height must be multiples of this many pixels. */
  readonly sizeMultiple: number;
  /** Side length in pixels that the model was trained at. */
  readonly nativeSize: number;
}

/** One text-to-image job, every field resolved and valid (the server does both). */
export interface ImageRequest {
  readonly prompt: string;
  /** `undefined`: absent, which is not the same as empty (`force_zeros_for_empty_prompt`). */
  readonly negativePrompt: string | undefined;
  /** In pixels, multiples of `sizeMultiple`. */
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly scheduler: string;
  /** One picture a seed, in order. */
  readonly seeds: readonly number[];
}

export interface Pipeline {
  readonly info: ModelInfo;
  /** The provider that its sessions run on. */
  readonly device: Exclude<Device, 'auto'>;
  /** Looks at `signal` between runs and throws its reason. Retains nothing once ended. */
  generate(request: ImageRequest, signal: AbortSignal): AsyncGenerator<PipelineEvent, void, undefined>;
  dispose(): Promise<void>;
}
