import type { Config } from '../../config/server-config.js';
import type { ErrorReason } from '../../errors.js';
import type { ControlNetSummary } from '../../pipelines/controlnets/controlnet-summary.js';
import { embeddingEndings, secondEmbeddingPath } from '../../pipelines/embeddings/embedding-file.js';
import type { EmbeddingSummary } from '../../pipelines/embeddings/embedding-summary.js';
import type { AnyFamily } from '../../pipelines/family.js';
import type { LoraSummary } from '../../pipelines/lora/lora-summary.js';
import type { GenerationRequest } from '../../pipelines/pipeline.js';
import { upscalerEndings } from '../../pipelines/upscalers/upscaler-file.js';
import type { UpscalerSummary } from '../../pipelines/upscalers/upscaler-summary.js';
import type { NamedFile } from './without-paths.js';

/** Summaries of the files beside a checkpoint that requests name, by kind. */
export interface AddOnSummaries {
  readonly lora: LoraSummary;
  readonly embedding: EmbeddingSummary;
  readonly controlnet: ControlNetSummary;
  readonly upscaler: UpscalerSummary;
}

export type AddOnName = keyof AddOnSummaries;

/** One kind of files beside a checkpoint. Its summary is read by add-on-thread.ts. */
export interface AddOnKind<Name extends AddOnName = AddOnName> {
  readonly name: Name;
  /** Name in messages. */
  readonly title: string;
  /** Variable of its folder. */
  readonly variable: keyof Config;
  /** Endings of its files, in lower case. */
  readonly endings: readonly string[];
  /** Reason of the error for a name that no file has. */
  readonly notFound: ErrorReason;
  /** Name of a file by its path below the folder without the ending. Omitted: that path. */
  nameOf?(path: string): string;
  /** A second file that belongs to one, if it is there. Omitted: there is none. */
  partOf?(path: string): string;
  /** Base model of files for a family. Undefined: the family takes none. */
  baseOf(family: AnyFamily): string | undefined;
}

export const loraKind: AddOnKind<'lora'> = {
  name: 'lora',
  title: 'LoRA',
  variable: 'LORA_DIR',
  endings: ['.safetensors'],
  notFound: 'LORA_NOT_FOUND',
  baseOf: ({ loraBase }) => loraBase,
};

/** Textual inversion. */
export const embeddingKind: AddOnKind<'embedding'> = {
  name: 'embedding',
  title: 'embedding',
  variable: 'EMBEDDING_DIR',
  endings: embeddingEndings,
  notFound: 'EMBEDDING_NOT_FOUND',
  partOf: secondEmbeddingPath,
  baseOf: ({ takes, loraBase }) => (takes.embeddings ? loraBase : undefined),
};

/** The weights of a diffusers folder, which is named for it. */
const IN_FOLDER = /\/diffusion_pytorch_model(\.fp16)?$/;

export const controlNetKind: AddOnKind<'controlnet'> = {
  name: 'controlnet',
  title: 'ControlNet',
  variable: 'CONTROLNET_DIR',
  endings: ['.safetensors'],
  notFound: 'CONTROLNET_NOT_FOUND',
  nameOf: (path) => path.replace(IN_FOLDER, ''),
  baseOf: ({ takes, loraBase }) => (takes.controls ? loraBase : undefined),
};

export const upscalerKind: AddOnKind<'upscaler'> = {
  name: 'upscaler',
  title: 'upscaler',
  variable: 'UPSCALER_DIR',
  endings: upscalerEndings,
  notFound: 'UPSCALER_NOT_FOUND',
  // It sees images alone.
  baseOf: ({ takes }) => (takes.upscale ? 'any' : undefined),
};

/** The files that a request names. */
export function filesOf({
  loras = [],
  embeddings = [],
  controls = [],
  upscale,
}: GenerationRequest): readonly NamedFile[] {
  const named = (title: string, { name, path }: { readonly name: string; readonly path: string }) => ({
    title,
    name,
    path,
  });
  return [
    ...loras.map((lora) => named(loraKind.title, lora)),
    ...embeddings.map((embedding) => named(embeddingKind.title, embedding)),
    ...controls.map((control) => named(controlNetKind.title, control)),
    ...(upscale === undefined || typeof upscale.method === 'string' ? [] : [named(upscalerKind.title, upscale.method)]),
  ];
}
