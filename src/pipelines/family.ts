import type { z } from 'zod';
import { InferenceError } from '../errors.js';
import type { Makes } from '../job-types.js';
import type { Backend } from '../runtime/backend.js';
import { type CheckpointGlance, glanceAt } from './checkpoint-glance.js';
import type { MemoryRelief } from './common/memory-relief.js';
import type { SamplingPresets } from './common/sampling-preset.js';
import type { LoraBase } from './lora/lora-header.js';
import type { PlannedNetwork, RunSize } from './model-memory.js';
import type { FrameConditioning, ModelInfo, Pipeline, PromptReport, PromptSyntax } from './pipeline.js';

/**
 * A model family: everything that server, engine, command line and configuration ask about one kind of model. Reading a family
 * loads no pipeline: `open`, `inspect` and `openTokenizer` import what they need when they are called.
 *
 * @typeParam Variables what `variables` parse to
 * @typeParam Source where a model comes from: plain data, which is sent to the engine process
 */
export interface Family<Variables = object, Source extends object = object> {
  /** Lower-case name in the API, in configuration and in lanes of the bridge. */
  readonly name: string;
  /** Name in messages, for example "SDXL". */
  readonly title: string;
  /** Base that LoRA files for it name by their keys. Omitted: it takes no LoRAs. */
  readonly loraBase?: LoraBase;
  /** Omitted: it makes images only. */
  readonly video?: VideoTraits;
  /** Several images are denoised together. Where false, images run one after the other. */
  readonly isBatched: boolean;
  readonly schedulers: SchedulerChoice;
  /** Settings of models that were distilled for a few steps. Empty: it has no such models. */
  readonly samplingPresets: SamplingPresets;
  /** A request without a job type. */
  readonly bareCall: BareCall;
  /**
   * The negative prompt of job types, where the request has none.
   * @param frames what the model does with known frames. Omitted: it has none
   */
  negativePrompt(prompt: string, frames?: FrameConditioning): string;
  readonly references: ReferenceTraits;
  /** Optional fields of a request that have an effect. */
  readonly takes: {
    readonly weights: boolean;
    readonly stepSaving: boolean;
    readonly skipLayers: boolean;
    readonly embeddings: boolean;
    readonly controls: boolean;
    readonly upscale: boolean;
    readonly guidanceRescale: boolean;
    readonly dynamicThresholding: boolean;
    readonly deepCache: boolean;
    /** Some of its models follow a control video. */
    readonly controlVideo: boolean;
  };

  /** Environment variables, with bounds, defaults and descriptions. */
  readonly variables: Readonly<Record<string, z.ZodType>>;
  /** Command line options of `serve` and `models inspect`, by variable; the checkpoint's own first. */
  readonly options: Readonly<Record<string, FamilyOption>>;
  /** Name that requests use for the model of this family. */
  modelName(variables: Variables): string;
  /** Engines that serve the model. Omitted: one. */
  replicas?(variables: Variables): number;
  /** Name of the preset of requests that name none. Omitted or undefined: there is none. */
  samplingPreset?(variables: Variables): string | undefined;
  /** Undefined where the variables name no checkpoint. */
  sourceFrom(variables: Variables): Source | undefined;

  /** True if the checkpoint is of this family. */
  recognises(checkpoint: CheckpointGlance): boolean;
  /** Loads a model in an engine process. @throws InferenceError what is wrong with the checkpoint */
  open(source: Source, options: OpenOptions): Promise<Pipeline>;
  /** Checks a checkpoint without loading it. @throws InferenceError that lists every problem of the checkpoint */
  inspect(source: Source): Promise<Inspection>;
  /**
   * Computes what each network of a checkpoint takes for a run of a size, without loading it. Omitted: the family has no networks.
   * @param dialectsOf of the device that it is planned for
   * @param cardBytes memory of CUDA's card. Omitted: not known, or another device
   */
  planMemory?(
    source: Source,
    dialectsOf: Backend['dialectsOf'],
    run: RunSize,
    cardBytes?: number,
  ): Promise<readonly PlannedNetwork[]>;
  /** Reads the tokenizers of a checkpoint. Omitted: Tokenize does not serve this family. */
  openTokenizer?(source: Source): Promise<PromptTokenizer>;
}

/** Any family: what code outside of the families sees. */
export type AnyFamily = Family;

export interface VideoTraits {
  /** Fewest frames that have an end apart from the start. */
  readonly minFramesWithEnd: number;
  /** The frame count that is rendered for a request's. */
  roundFrames(frames: number): number;
}

export interface SchedulerChoice {
  /** Names that a request may give. */
  readonly names: readonly string[];
  readonly default: string;
  /** The scheduler that a name means, whatever its spelling elsewhere; undefined for a name that means none. */
  resolve(name: string): string | undefined;
}

export interface BareCall {
  readonly makes: Makes;
  readonly steps: number;
  readonly guidanceScale: number;
  /** The family's negative prompt applies to a bare call, too. Where false, an absent negative prompt stays absent. */
  readonly hasNegativePrompt: boolean;
}

export interface ReferenceTraits {
  /** `reference_strength` where the request has none, 0.1 to 1. */
  readonly defaultStrength: number;
  /** Its images can be drawn anew in a part of their reference. Omitted: they cannot. */
  readonly takesMask?: boolean;
  /** Guidance scale of a job with a reference, in place of the preset's. Omitted: the preset's stays. */
  guidanceScale?(strength: number): number;
}

export interface FamilyOption {
  /** Flags in commander's notation, for example `--wan-vae <path>`. */
  readonly flags: string;
  /** What the flag does, of one that sets the variable to "true". Omitted: the variable's description. */
  readonly description?: string;
  /** Flag that sets the variable to "false", for example `--no-ztsnr`; its description. */
  readonly negative?: { readonly flags: string; readonly description: string };
}

/** The flag of an option, as remedies name it: `--wan-vae`. */
export function flagOf(option: FamilyOption | undefined): string {
  return option?.flags.split(' ')[0] ?? '';
}

export interface OpenOptions {
  readonly backend: Backend;
  /** Pixels of all images that are denoised together. */
  readonly batchPixels: number;
  /** Frees memory when it runs out, and counts the measures. Default: nothing is freed. */
  readonly relief?: MemoryRelief | undefined;
  /** Called with what the checkpoint says of the model, before its weights are read. Omitted: nobody asks. */
  readonly onDescribed?: ((info: ModelInfo) => void) | undefined;
  /** Folder for weights that are converted before they are used. Default: darkroom/weights in the user's folder for caches. */
  readonly weightsCache?: string | undefined;
}

/** Description of a checkpoint that was not loaded. */
export interface Inspection {
  /** For example "WAN 2.1 image-to-video". */
  readonly title: string;
  readonly layout: 'diffusers' | 'original';
  readonly info: ModelInfo;
  readonly networks: Readonly<Record<string, { readonly parameters: number; readonly files: readonly string[] }>>;
}

/** Splits prompts into tokens without the model. */
export interface PromptTokenizer {
  /** @param embeddings whose names are tokens, one a vector. Omitted: none */
  tokenize(text: string, syntax: PromptSyntax, embeddings?: readonly CountedEmbedding[]): TokenizedPrompt;
}

/** An embedding as a tokenizer sees it. */
export interface CountedEmbedding {
  readonly name: string;
  /** Vectors of each encoder; 0 for an encoder that reads the name as text. */
  readonly counts: readonly number[];
}

export interface TokenizedPrompt {
  readonly encoders: readonly EncoderTokens[];
  /** Every stretch of text under one weight, in order; text without a weight has 1. `tokens`: of the encoder that needs more. */
  readonly phrases: readonly { readonly text: string; readonly weight: number; readonly tokens: number }[];
  readonly report: PromptReport;
}

export interface EncoderTokens {
  /** Name of the encoder's part of the checkpoint. */
  readonly encoder: string;
  /** Ids of each chunk: begin, tokens, end, padding. */
  readonly chunks: readonly Int32Array[];
  /** Begin, end and padding not counted; dropped ones are. */
  readonly tokens: number;
  readonly dropped: number;
}

/** The families that a process knows; the first one is used where nothing names another. */
export type Families = readonly [AnyFamily, ...AnyFamily[]];

/** @throws InferenceError INTERNAL for a name that no family has */
export function familyNamed(families: Families, name: string): AnyFamily {
  const found = families.find((family) => family.name === name);
  if (found !== undefined) return found;
  const known = families.map((family) => family.name).join(', ');
  throw new InferenceError('INTERNAL', `family "${name}" must be one of ${known}`);
}

/** Titles of the families that a condition holds for, as messages list them. */
export function titlesOf(families: Families, holds: (family: AnyFamily) => boolean): string {
  return families
    .filter(holds)
    .map(({ title }) => title)
    .join(' and ');
}

/** The family of a checkpoint. Where no family recognises it, the first one, whose error says what the file is instead. */
export async function familyOfCheckpoint(families: Families, path: string): Promise<AnyFamily> {
  const checkpoint = await glanceAt(path);
  return families.find((family) => family.recognises(checkpoint)) ?? families[0];
}
