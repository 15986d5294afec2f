import { stat } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { elementCount } from '../../std/element-count.js';
import { readSafetensors } from '../../weights/safetensors.js';
import { below, type WeightFiles } from '../../weights/weight-files.js';

/** Base model of a ControlNet, as its keys show it. */
export type ControlNetBase = 'SDXL' | 'Stable Diffusion 1 or 2';

/** The header of a ControlNet file; its numbers are not read. */
export interface ControlNetHeader {
  readonly base: ControlNetBase;
  readonly layout: 'diffusers' | 'original';
  /** Kinds of control images that a union model knows; 0 for an ordinary ControlNet. */
  readonly modes: number;
  /** Its own tensors, in the names of their layout without a prefix. */
  readonly files: WeightFiles;
  readonly parameters: number;
  readonly sizeBytes: number;
}

const PREFIX = 'control_model.';

/** Keys of what is loaded beside a model as a ControlNet is, and computes something else. */
const OTHER_KINDS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/^lora_controlnet$|\.(up|down)$/, 'a Control-LoRA'],
  [/^lllite_/, 'a ControlNet-LLLite'],
  [/^adapter\.|^body\.\d+\.resnets/, 'a T2I adapter'],
  [/^controlnet_(x_embedder|blocks\.)/, 'a ControlNet for a transformer'],
];

/** True for a file with a ControlNet's own tensors. @param keys of all tensors */
export function isControlNetFile(keys: readonly string[]): boolean {
  return keys.some((key) => key.startsWith('controlnet_cond_embedding.') || key.includes('input_hint_block.'));
}

/**
 * Reads the header of a ControlNet: in diffusers' names, or in the original ones, with `control_model.` before them or without.
 * @throws InferenceError MODEL_UNSUPPORTED for a file that is none, or one of another kind; CHECKPOINT_INVALID for a damaged file
 */
export async function readControlNetHeader(path: string): Promise<ControlNetHeader> {
  const { tensors, metadata, file } = await readSafetensors(path);
  const own = below(tensors, PREFIX);
  const bare = own.size > 0 ? own : tensors;
  const keys = [...bare.keys()];
  const refuse = (problem: string): never => {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} ${problem}`);
  };
  const other = OTHER_KINDS.find(([pattern]) => keys.some((key) => pattern.test(key)));
  if (other !== undefined) refuse(`is ${other[1]}; darkroom takes ControlNets`);
  if (!isControlNetFile(keys))
    refuse('is no ControlNet: it has neither controlnet_cond_embedding.* nor input_hint_block.*');
  const layout = keys.some((key) => key.startsWith('input_hint_block.')) ? 'original' : 'diffusers';
  const takesSizes = keys.some((key) => key.startsWith('label_emb.') || key.startsWith('add_embedding.'));
  const parameters = [...bare.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
  return {
    base: takesSizes ? 'SDXL' : 'Stable Diffusion 1 or 2',
    layout,
    modes: bare.get('task_embedding')?.shape[0] ?? 0,
    files: { path, tensors: bare, metadata },
    parameters,
    sizeBytes: (await stat(file)).size,
  };
}
