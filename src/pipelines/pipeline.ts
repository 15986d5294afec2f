/** The interface of every model family: an async generator over many short engine runs, and a description of the model. */
import type { PrecisionName } from '../device.js';
import type { Backend } from '../runtime/backend.js';
import type { ModelMemory } from './model-memory.js';

export type Phase = 'encode' | 'denoise' | 'decode';

/** An event of one of the jobs that run together; `job` is its index among them. */
export type PipelineEvent = { readonly job: number } & (
  | PromptEvent
  | ProgressEvent
  | PreviewEvent
  | ImageEvent
  | FramesEvent
  /** Its last image was made. `forwards`: as `JobMetadata` has them; omitted, they were not counted. */
  | {
      readonly kind: 'done';
      readonly forwards?: number;
      /** What the networks of the job's variant compute in. Omitted: those of the model. */
      readonly precisions?: readonly NetworkPrecision[] | undefined;
    }
  /** The variant of the model that it needs is built, which blocks until it is there. */
  | { readonly kind: 'building' }
  /** Its signal was seen: nothing more is done for it. */
  | { readonly kind: 'aborted' }
);

/** The prompt was read and encoded. */
export interface PromptEvent {
  readonly kind: 'prompt';
  readonly report: PromptReport;
  /** Texts of the job whose embeddings were kept, and those that were encoded. Omitted: not counted. */
  readonly cache?: PromptCacheUse;
}

export interface PromptCacheUse {
  readonly hits: number;
  readonly misses: number;
}

/** `step` of `total` of this phase are done, over all images of the job. */
export interface ProgressEvent {
  readonly kind: 'progress';
  readonly phase: Phase;
  readonly step: number;
  readonly total: number;
}

/** A preview of an image, one pixel a latent. `rgb` is row-major uint8 [height, width, 3]. */
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

/** Facts about a loaded or inspected model. */
export interface ModelInfo {
  /** Name of its family. */
  readonly family: string;
  /** Number of weights of all networks together. */
  readonly parameters: number;
  /** Bytes of weights on disk. */
  readonly weightBytes: number;
  /** Storage type of the largest network: F16, BF16 or F32. */
  readonly storage: string;
  readonly predictionType: 'epsilon' | 'v_prediction' | 'sample' | 'flow';
  readonly schedulers: readonly string[];
  /** Largest number of steps, of schedulers that have one. Omitted: none has. */
  readonly maxSteps?: Readonly<Record<string, number>>;
  /** Width and height must be multiples of this many pixels. */
  readonly sizeMultiple: number;
  /** In pixels: what a request gets that asks for none. */
  readonly nativeWidth: number;
  readonly nativeHeight: number;
  /** Videos that it was trained on: what a request gets that names no number of frames. Omitted: it makes none. */
  readonly clip?: VideoClip;
  /** Keys of the checkpoint that are not used. */
  readonly unused: readonly string[];
  /** What each network computes in. Omitted: the model is not loaded. */
  readonly precisions?: readonly NetworkPrecision[];
  /** What its networks take on the device. Omitted: the model is not loaded. */
  readonly memory?: ModelMemory | undefined;
  /** True if an IP-Adapter applies references of the types style and character. Omitted: none does. */
  readonly takesImagePrompts?: boolean;
  /** WAN only: number of the transformer's blocks. */
  readonly layers?: number;
  /** WAN only: the known frames that it takes, and how. */
  readonly frames?: FrameConditioning;
}

/** Length and rate of a video. */
export interface VideoClip {
  readonly frames: number;
  /** Frames per second. */
  readonly fps: number;
}

/** The known frames that a model of WAN takes, and the method by which it takes them. */
export interface FrameConditioning {
  readonly method: FrameMethod;
  readonly takes: readonly FramePlace[];
  /** Places without which the model makes nothing. */
  readonly needs: readonly FramePlace[];
  /** True if it takes a control video. Omitted: it does not. */
  readonly takesControlVideo?: boolean;
}

/** `look`: what the video is to look like; it is none of its frames. */
export type FramePlace = 'start' | 'end' | 'look';

/**
 * The grammar of a prompt's signs. `diffusers`: as text, cut at 75 tokens as diffusers does. `plain`: as text, longer prompts go on
 * in further chunks. `weighted`: the grammar of prompt-weights.ts, in chunks.
 */
export type PromptSyntax = 'diffusers' | 'plain' | 'weighted';

/** A report of how a prompt's text was read. */
export interface PromptReport {
  /** Number of chunks of 75 tokens. */
  readonly chunks: number;
  /** Tokens of the text, in the encoder that needs more of them. */
  readonly tokens: number;
  /** Tokens that were cut off. */
  readonly dropped: number;
  readonly strategy: 'compel' | 'fallback' | 'none';
  /** Reason of a `fallback`. */
  readonly problem?: string;
}

/** One job, every field resolved and valid (the server does both). */
export interface GenerationRequest {
  readonly prompt: string;
  /** `undefined`: absent, which is not the same as empty (`force_zeros_for_empty_prompt`). */
  readonly negativePrompt: string | undefined;
  /** Grammar of both prompts. Omitted: `diffusers`. */
  readonly promptSyntax?: PromptSyntax;
  /** Weighted phrases behind the prompt; left out where they cannot be parsed. */
  readonly weights?: string;
  /** In pixels, multiples of `sizeMultiple`. */
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly guidanceScale: number;
  /** Share by which guidance keeps the deviation of the conditional output, 0 to 1. SDXL only. Omitted: 0. */
  readonly guidanceRescale?: number | undefined;
  /** Omitted: guidance may give any value. */
  readonly dynamicThresholding?: DynamicThresholding | undefined;
  /** SDXL only: every so many calls of the denoiser one is whole; the others reuse its deep features. 1 or omitted: all are whole. */
  readonly deepCacheInterval?: number | undefined;
  readonly scheduler: string;
  /** One image a seed, in order. */
  readonly seeds: readonly number[];
  /** WAN only: the video; an image is a video of one frame. */
  readonly video?: VideoRequest;
  /** The image to start from; omitted, noise alone. */
  readonly init?: InitImage | undefined;
  /** SDXL with an IP-Adapter only: an image that the result is to look like. Omitted: none. */
  readonly imagePrompt?: RequestImagePrompt | undefined;
  /** At most so many previews a second; 0 or omitted: none. */
  readonly previewsPerSecond?: number;
  /** On top of the checkpoint. Omitted: none. */
  readonly loras?: readonly RequestLora[] | undefined;
  /** Embeddings that its prompts name. Omitted: none. */
  readonly embeddings?: readonly RequestEmbedding[] | undefined;
  /** ControlNets, with their images. Omitted: none. */
  readonly controls?: readonly RequestControl[] | undefined;
  /** What enlarges its images. Omitted: they stay as they are. */
  readonly upscale?: RequestUpscale | undefined;
}

/**
 * Enlarges an image: its pixels (`lanczos`, or a network), or its latents. Then, with a strength, the image is drawn again at its new
 * size, as image to image does it.
 */
export interface RequestUpscale {
  readonly method: 'lanczos' | 'latent' | RequestUpscaler;
  /** As it was asked for; sides are rounded. */
  readonly factor: number;
  /** Of the result, in pixels: multiples of `sizeMultiple`. */
  readonly width: number;
  readonly height: number;
  /** 0 to 1: 0 draws nothing again; `latent` must be above. */
  readonly strength: number;
  /** Of the whole schedule of which `strength` is run. */
  readonly steps: number;
}

/** An upscaler of a request, as the server found it. */
export interface RequestUpscaler {
  /** Name in requests. */
  readonly name: string;
  readonly path: string;
  /** Another one when the file was replaced. */
  readonly revision: string;
  /** What it takes on the device at most. */
  readonly bytes: number;
}

/** An image that an IP-Adapter lets the result look like. */
export interface RequestImagePrompt {
  /** Row-major uint8 [height, width, 3] of a size of its own. */
  readonly rgb: Uint8Array;
  readonly width: number;
  readonly height: number;
  /** What the attention to it is multiplied by, 0 to 1. */
  readonly scale: number;
}

/** A ControlNet of a request, as the server found it. */
export interface RequestControl {
  /** Name in requests. */
  readonly name: string;
  readonly path: string;
  /** Another one when the file was replaced. */
  readonly revision: string;
  /** Number of its weights. */
  readonly parameters: number;
  /** Row-major uint8 [height, width, 3] of the request's own size; empty until it was fetched. */
  readonly rgb: Uint8Array;
  /** Kind of its image, from 0, for a union model. Omitted: it is an ordinary ControlNet. */
  readonly mode?: number | undefined;
  /** What its residuals are multiplied by, 0 to 2. */
  readonly scale: number;
  /** It acts in call i of n where i / n >= start and (i + 1) / n <= end, 0 to 1 each. */
  readonly start: number;
  readonly end: number;
}

/** An embedding of a request (textual inversion), as the server found it. */
export interface RequestEmbedding {
  /** Name in prompts. */
  readonly name: string;
  readonly path: string;
  /** Another one when the file was replaced. */
  readonly revision: string;
}

/** A LoRA of a request, as the server found it. */
export interface RequestLora {
  /** Name in requests. */
  readonly name: string;
  readonly path: string;
  /** Another one when the file was replaced. */
  readonly revision: string;
  /** Strength in the denoiser, -2 to 2. */
  readonly weight: number;
  /** Strength in the text encoders, -2 to 2. */
  readonly textEncoderWeight: number;
}

/** Image to image: the image is noised to where `strength` of the steps are left, and denoised from there. */
export interface InitImage {
  /** Row-major uint8 [height, width, 3] of the request's own size. */
  readonly rgb: Uint8Array;
  /** 0 to 1: 1 keeps next to nothing of the image. `steps * strength` must be at least 1. */
  readonly strength: number;
  /** Inpainting: uint8 [height, width], 255 where the image is drawn anew and 0 where it is kept. Omitted: all is drawn anew. */
  readonly mask?: Uint8Array | undefined;
  /**
   * Only the masked part is drawn, at the full size, with so many pixels around it, and pasted back. Omitted: the whole image is.
   */
  readonly cropPadding?: number | undefined;
}

export interface VideoRequest {
  /** 4n + 1 */
  readonly frames: number;
  /**
   * Shift of the flow's noise levels: a larger one spends more steps at high noise. Omitted: the value that the model was
   * published with, 5 for text-to-video.
   */
  readonly shift?: number;
  /** Omitted: no frame is known. */
  readonly known?: KnownImages | undefined;
  /** Omitted: it follows no video. */
  readonly control?: RequestControlVideo | undefined;
  /** The steps that are guided; the others are run on the prompt alone. Omitted: all. */
  readonly guidanceInterval?: GuidanceInterval | undefined;
  /**
   * Steps leave out the transformer's blocks and add what these added the last time, until its timestep embedding has changed
   * by this much, relatively. 0 or omitted: none does.
   */
  readonly reuseThreshold?: number;
  /** Omitted: every block of the transformer is run. */
  readonly skipLayers?: SkipLayers | undefined;
}

/** Guidance with the range of values that a lower scale, the mimicked, would give. */
export interface DynamicThresholding {
  readonly mimicScale: number;
  /** 0 to 1: the share of the values that are not cut. */
  readonly percentile: number;
}

/** Skip-layer guidance: the steps inside it guide away from what the transformer makes without some of its blocks. */
export interface SkipLayers extends GuidanceInterval {
  /** The blocks that are skipped, from 0, each once. */
  readonly layers: readonly number[];
  /**
   * 0: the unconditional half of a guided step skips them. Above 0: a run of its own over the prompt skips them, and the
   * prompt's velocity less that one's is added, multiplied by this.
   */
  readonly scale: number;
}

/** Step i of n is inside where start <= i / n < end: 0 to 1, start at most end. */
export interface GuidanceInterval {
  readonly start: number;
  readonly end: number;
}

/**
 * The method by which a model of WAN takes known frames. `latent_hold`: their latents are put back after every step, noised to
 * its level. `clean_frames`: the same without noise, at a timestep of 0.
 * `vace`: as a control beside the latents. `image_conditioning`: as more channels of the latents, and as images that it attends to.
 */
const frameMethods = ['latent_hold', 'clean_frames', 'vace', 'image_conditioning'] as const;
export type FrameMethod = (typeof frameMethods)[number];

/** True for methods that put the latents of known frames back after every step: an image starts from them instead. */
export function holdsLatents(method: FrameMethod): boolean {
  return method === 'latent_hold' || method === 'clean_frames';
}

/** Images that a video is made from, row-major uint8 [height, width, 3] of the request's own size. */
export interface KnownImages {
  /** The model's own, or `latent_hold` on one that needs none. */
  readonly method: FrameMethod;
  /** The first frame. */
  readonly start?: Uint8Array | undefined;
  /** The last frame. */
  readonly end?: Uint8Array | undefined;
  /** An image that the video is to look like; it is none of its frames. VACE and Fun-Control V1.1 only. */
  readonly look?: Uint8Array | undefined;
  /**
   * 0 to 1. Of `latent_hold` the share of the steps that they are held for; of `vace` what the control is multiplied by;
   * `image_conditioning` and `clean_frames` have none.
   */
  readonly strength: number;
}

/** A video whose movement or outlines a video follows, frame by frame: the server fetched it and decoded it once. */
export interface RequestControlVideo {
  /** Its file, as it came. It is decoded where its frames are encoded, because they are large. */
  readonly file: Uint8Array;
  /** Path of the ffmpeg that decodes it. */
  readonly ffmpeg: string;
  /** Rate at which its frames are taken, a second. */
  readonly fps: number;
  /** Number of the video's frames that it covers; the rest repeat its last one. */
  readonly frames: number;
  /** What VACE's control is multiplied by, 0 to 2. Omitted: the strength of the known images, without them 1. */
  readonly scale?: number | undefined;
}

export interface PipelineJob {
  readonly request: GenerationRequest;
  /** Ends a run of a network that no other job needs. With the Node binding it is looked at between two runs. */
  readonly signal: AbortSignal;
}

/** What a network of a model computes in. */
export interface NetworkPrecision {
  /** Its name, for example unet. */
  readonly network: string;
  /** int8: linear layers in 8 bits, the rest in float32. */
  readonly precision: PrecisionName | 'int8';
  /** Reason why it is wider than what was tried first. */
  readonly reason?: string;
}

export interface BuiltVariants {
  /** Keys of the variants that are loaded, as `variantKey` makes them. */
  readonly keys: readonly string[];
  /** Number of variants that were built since the engine started. */
  readonly builds: number;
  /** Memory of the device that they take at most, in bytes. Omitted: none. */
  readonly bytes?: number;
  /** Number of variants that were disposed of since then. Omitted: none. */
  readonly evictions?: number;
}

export interface Pipeline {
  readonly info: ModelInfo;
  /** Computes what its networks take on the device. Omitted: it has none. */
  planMemory?(): ModelMemory | undefined;
  /** Variants of the model. Omitted: it has none. */
  readonly variants?: BuiltVariants;
  /** Device of its sessions. */
  readonly backend: Backend;
  /** Runs jobs together; images that can share runs of the denoiser do. Retains nothing once ended. */
  generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined>;
  dispose(): Promise<void>;
}
