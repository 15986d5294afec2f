import { stat } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { formatShape } from '../../std/format-shape.js';
import { shown } from '../../std/shown.js';
import { floatTypes, type TensorRecord } from '../../weights/safetensors.js';
import { readTensorList } from '../../weights/tensor-list.js';

/** Endings of files that hold embeddings, in lower case: the first of one name counts. */
export const embeddingEndings = ['.safetensors', '.pt', '.bin'] as const;

/** Base model that an embedding was trained on, as the widths of its vectors show it. */
export type EmbeddingBase = 'SDXL' | 'Stable Diffusion 1' | 'Stable Diffusion 2' | 'unknown';

/** `clip`: clip_l and clip_g. `a1111`: string_to_param or emb_params. `diffusers`: one tensor under the name of its token. */
export type EmbeddingFormat = 'clip' | 'a1111' | 'diffusers';

/** Numbers of a token in SDXL's two text encoders. */
const CLIP_L_WIDTH = 768;
export const CLIP_G_WIDTH = 1280;

/** SDXL's text encoders, as files name them. */
export type EncoderName = 'clip_l' | 'clip_g';

/** A chunk of a prompt has 75 tokens; the largest published embeddings fill one. */
export const MAX_VECTORS = 128;
/** The widest text encoder that an image model has. */
const MAX_WIDTH = 8192;

/** The header of an embedding file; its numbers are not read. */
export interface EmbeddingFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly base: EmbeddingBase;
  readonly format: EmbeddingFormat;
  /** Vectors of each text encoder, [vectors, width]. */
  readonly encoders: ReadonlyMap<EncoderName, TensorRecord>;
  /** Vectors of an encoder that the file does not name: the one of their width. */
  readonly unnamed: readonly TensorRecord[];
}

/** Names that files give the two encoders' vectors. */
const ENCODERS: Readonly<Record<string, EncoderName>> = {
  clip_l: 'clip_l',
  text_encoders_0: 'clip_l',
  clip_g: 'clip_g',
  text_encoders_1: 'clip_g',
};

/**
 * The file with the second encoder's vectors beside one that diffusers' training script wrote: `learned_embeds_2.safetensors`
 * beside `learned_embeds.safetensors`.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/examples/textual_inversion/textual_inversion_sdxl.py
 */
export function secondEmbeddingPath(path: string): string {
  return path.replace(/(\.[a-z]+)$/i, '_2$1');
}

/**
 * Reads the header of an embedding: diffusers' (one tensor, the second encoder's in a file beside it), A1111's and ComfyUI's.
 * @throws InferenceError MODEL_UNSUPPORTED for a file that is no embedding, CHECKPOINT_INVALID for one that is not whole
 */
export async function readEmbeddingFile(path: string): Promise<EmbeddingFile> {
  const first = await readTensors(path);
  const found = sortTensors(path, first);
  const [lone] = found.unnamed;
  const second = secondEmbeddingPath(path);
  if (lone !== undefined && (await isFile(second))) {
    found.unnamed.push(...(await readSecond(path, second)));
  }
  const { encoders, unnamed, format } = found;
  for (const record of [...encoders.values(), ...unnamed]) assertVectors(path, record);
  return { path, sizeBytes: (await stat(path)).size, base: baseOf(encoders, unnamed), format, encoders, unnamed };
}

/** Messages name the first file: it has the name that callers know. */
async function readSecond(path: string, second: string): Promise<readonly TensorRecord[]> {
  try {
    return sortTensors(second, await readTensors(second)).unnamed;
  } catch (error) {
    if (!(error instanceof InferenceError)) throw error;
    throw new InferenceError(error.reason, error.message.replaceAll(second, `the second file of ${path}`), {
      cause: error,
    });
  }
}

function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (entry) => entry.isFile(),
    () => false,
  );
}

async function readTensors(path: string): Promise<readonly TensorRecord[]> {
  const { tensors } = await readTensorList(path);
  return [...tensors.values()];
}

interface SortedTensors {
  readonly encoders: Map<EncoderName, TensorRecord>;
  readonly unnamed: TensorRecord[];
  readonly format: EmbeddingFormat;
}

function sortTensors(path: string, tensors: readonly TensorRecord[]): SortedTensors {
  const encoders = new Map<EncoderName, TensorRecord>();
  for (const tensor of tensors) {
    const encoder = ENCODERS[tensor.name];
    if (encoder === undefined) continue;
    if (encoders.has(encoder)) refuse(path, `has vectors of ${encoder} twice; leave one out`);
    encoders.set(encoder, tensor);
  }
  if (encoders.size > 0) return { encoders, unnamed: [], format: 'clip' };
  const [only, second] = tensors;
  if (only === undefined || second !== undefined) {
    const names = tensors.slice(0, 3).map(({ name }) => `"${shown(name)}"`);
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is no embedding: it must have clip_l and clip_g, or one tensor; it has ${tensors.length}${names.length > 0 ? `, first ${names.join(', ')}` : ''}`,
    );
  }
  return { encoders, unnamed: [only], format: only.name === '*' || only.name === 'emb_params' ? 'a1111' : 'diffusers' };
}

function assertVectors(path: string, { name, shape, dtype }: TensorRecord): void {
  const [vectors = 0, width = 0] = shape.length === 1 ? [1, ...shape] : shape;
  const isTable = shape.length === 1 || shape.length === 2;
  if (!isTable || vectors < 1 || width < 1 || vectors > MAX_VECTORS || width > MAX_WIDTH) {
    const where = `has "${shown(name)}" of shape ${formatShape(shape)}`;
    refuse(path, `${where}, must be 1 to ${MAX_VECTORS} vectors of 1 to ${MAX_WIDTH} numbers`);
  }
  if (!floatTypes.some((type) => type === dtype))
    refuse(path, `has "${shown(name)}" of type ${dtype}, must be one of ${floatTypes.join(', ')}`);
}

/** Numbers of one vector. */
export function widthOf({ shape }: TensorRecord): number {
  return shape.at(-1) ?? 0;
}

/** Number of vectors. */
export function vectorsOf({ shape }: TensorRecord): number {
  return shape.length === 1 ? 1 : (shape[0] ?? 0);
}

/** A lone table as wide as SDXL's first encoder is one for Stable Diffusion 1, whose encoder is the same. */
function baseOf(encoders: SortedTensors['encoders'], unnamed: readonly TensorRecord[]): EmbeddingBase {
  const widths = unnamed.map(widthOf);
  if (encoders.size > 0 || widths.includes(CLIP_G_WIDTH)) return 'SDXL';
  if (widths.length === 1 && widths[0] === CLIP_L_WIDTH) return 'Stable Diffusion 1';
  if (widths.length === 1 && widths[0] === 1024) return 'Stable Diffusion 2';
  return 'unknown';
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}
