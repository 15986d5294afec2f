/** What every model family offers: an async generator over many short engine runs, and a description of the model. */
import type { Backend } from '../runtime/backend.js';

export type Phase = 'encode' | 'denoise' | 'decode';

/** What happens to one of the jobs that run together; `job` is its place among them. */
export type PipelineEvent = { readonly job: number } & (
  | PromptEvent
  | ProgressEvent
  | PreviewEvent
  | ImageEvent
  | FramesEvent
  /** Its last image was made. `forwards`: as `JobMetadata` has them; omitted, they were not counted. */
  | { readonly kind: 'done'; readonly forwards?: number }
  /** The variant of the model that it needs is built, which blocks until it is there. */
  | { readonly kind: 'building' }
  /** Its signal was seen: nothing more is done for it. */
  | { readonly kind: 'aborted' }
);

/** How the prompt was read. */
export interface PromptEvent {
  readonly kind: 'prompt';
  readonly report: PromptReport;
}

/** `step` of `total` of this phase are done, over all images of the job. */
export interface ProgressEvent {
  readonly kind: 'progress';
  readonly phase: Phase;
  readonly step: number;
  readonly total: number;
}

/** What an image will look like, one pixel a latent. `rgb` is row-major uint8 [height, width, 3]. */
export interface PreviewEvent {
  readonly kind: 'preview';
  readonly index: number;
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** One finished image. `rgb` is row-major uint8 [height, width, 3]. */
export interface ImageEvent {
  readonly kind: 'image';
  readonly index: number;
  readonly seed: number;
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** The next frames of a video, in order: row-major uint8 [height, width, 3] each. */
export interface FramesEvent {
  readonly kind: 'frames';
  readonly seed: number;
  readonly width: number;
  readonly height: number;
  readonly frames: readonly Uint8Array[];
}

/** What a loaded or inspected model is. */
export interface ModelInfo {
  /** Name of its family. */
  readonly family: string;
  /** Of all networks together. */
  readonly parameters: number;
  /** Bytes of weights on disk. */
  readonly weightBytes: number;
  /** Storage type of the largest network: F16, BF16 or F32. */
  readonly storage: string;
  readonly predictionType: 'epsilon' | 'v_prediction' | 'sample' | 'flow';
  readonly schedulers: readonly string[];
  /** Width and height must be multiples of this many pixels. */
  readonly sizeMultiple: number;
  /** In pixels: what a request gets that asks for none. */
  readonly nativeWidth: number;
  readonly nativeHeight: number;
  /** Keys of the checkpoint that are not used. */
  readonly unused: readonly string[];
  /** Of WAN: what it makes of known frames. */
  readonly frames?: FrameConditioning;
}

/** Which known frames a model of WAN takes, and how. */
export interface FrameConditioning {
  readonly method: FrameMethod;
  readonly takes: readonly FramePlace[];
  /** Those without which it makes nothing. */
  readonly needs: readonly FramePlace[];
}

export type FramePlace = 'start' | 'end';

/**
 * How a prompt's signs are read. `diffusers`: as text, cut at 75 tokens as diffusers does. `plain`: as text, longer prompts go on
 * in further chunks. `weighted`: the grammar of prompt-weights.ts, in chunks.
 */
export type PromptSyntax = 'diffusers' | 'plain' | 'weighted';

/** What became of a prompt's text. */
export interface PromptReport {
  /** Of 75 tokens. */
  readonly chunks: number;
  /** Of the text, in the encoder that needs more of them. */
  readonly tokens: number;
  /** Of those, cut off. */
  readonly dropped: number;
  readonly strategy: 'compel' | 'fallback' | 'none';
  /** With `fallback`: why. */
  readonly problem?: string;
}

/** One job, every field resolved and valid (the server does both). */
export interface GenerationRequest {
  readonly prompt: string;
  /** `undefined`: absent, which is not the same as empty (`force_zeros_for_empty_prompt`). */
  readonly negativePrompt: string | undefined;
  /** Of both prompts. Omitted: `diffusers`. */
  readonly promptSyntax?: PromptSyntax;
  /** Weighted phrases behind the prompt; left out where they cannot be parsed. */
  readonly weights?: string;
  /** In pixels, multiples of `sizeMultiple`. */
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly scheduler: string;
  /** One image a seed, in order. */
  readonly seeds: readonly number[];
  /** Of WAN: what the video is; an image is one of one frame. Omitted: SDXL. */
  readonly video?: VideoRequest;
  /** The image to start from; omitted, noise alone. */
  readonly init?: InitImage | undefined;
  /** At most so many previews a second; 0 or omitted: none. */
  readonly previewsPerSecond?: number;
  /** On top of the checkpoint. Omitted: none. */
  readonly loras?: readonly RequestLora[] | undefined;
}

/** A LoRA of a request, as the server found it. */
export interface RequestLora {
  /** What requests call it. */
  readonly name: string;
  readonly path: string;
  /** Another one when the file was replaced. */
  readonly revision: string;
  /** Of the denoiser, -2 to 2. */
  readonly weight: number;
  /** Of the text encoders, -2 to 2. */
  readonly textEncoderWeight: number;
}

/** Image to image: the image is noised to where `strength` of the steps are left, and denoised from there. */
export interface InitImage {
  /** Row-major uint8 [height, width, 3] of the request's own size. */
  readonly rgb: Uint8Array;
  /** 0 to 1: 1 keeps next to nothing of the image. `steps * strength` must be at least 1. */
  readonly strength: number;
}

export interface VideoRequest {
  /** 4n + 1 */
  readonly frames: number;
  /**
   * Of the flow's noise levels: the larger, the more steps are spent where there is much noise. Omitted: what the model was
   * published with, 5 for text-to-video.
   */
  readonly shift?: number;
  /** Omitted: it is made from text alone. */
  readonly known?: KnownImages | undefined;
  /** The steps that are guided; the others are run on the prompt alone. Omitted: all. */
  readonly guidanceInterval?: GuidanceInterval | undefined;
  /**
   * Steps leave out the transformer's blocks and add what these added the last time, until its timestep embedding has changed
   * by this much, relatively. 0 or omitted: none does.
   */
  readonly reuseThreshold?: number;
}

/** Step i of n is inside where start <= i / n < end: 0 to 1, start at most end. */
export interface GuidanceInterval {
  readonly start: number;
  readonly end: number;
}

/**
 * How a model of WAN is told of known frames. `latent_hold`: their latents are put back after every step, noised to its level.
 * `vace`: as a control beside the latents. `image_conditioning`: as more channels of the latents, and as images it looks at.
 */
export const frameMethods = ['latent_hold', 'vace', 'image_conditioning'] as const;
export type FrameMethod = (typeof frameMethods)[number];

/** Images that a video is made from, row-major uint8 [height, width, 3] of the request's own size. */
export interface KnownImages {
  /** The model's own, or `latent_hold` on one that needs none. */
  readonly method: FrameMethod;
  /** The first frame. */
  readonly start?: Uint8Array | undefined;
  /** The last frame. */
  readonly end?: Uint8Array | undefined;
  /** What it is to look like, at no place of its own. Of `vace` alone. */
  readonly look?: Uint8Array | undefined;
  /**
   * 0 to 1. Of `latent_hold` the share of the steps that they are held for; of `vace` what the control is multiplied by;
   * `image_conditioning` has none.
   */
  readonly strength: number;
}

export interface PipelineJob {
  readonly request: GenerationRequest;
  /** Looked at between two runs of a network. */
  readonly signal: AbortSignal;
}

export interface BuiltVariants {
  /** Those that are there, as `variantKey` names them. */
  readonly keys: readonly string[];
  /** How many were built since the engine started. */
  readonly builds: number;
}

export interface Pipeline {
  readonly info: ModelInfo;
  /** Variants of the model. Omitted: it has none. */
  readonly variants?: BuiltVariants;
  /** What its sessions run on. */
  readonly backend: Backend;
  /** Runs jobs together; images that can share runs of the denoiser do. Retains nothing once ended. */
  generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined>;
  dispose(): Promise<void>;
}
