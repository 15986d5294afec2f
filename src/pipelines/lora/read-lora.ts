import { open } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import type { LowRankFactor, LowRankUpdate } from '../../graph/low-rank.js';
import { floatsFrom } from '../../weights/half-floats.js';
import type { TensorRecord } from '../../weights/safetensors.js';
import type { WeightUpdates } from '../common/build-networks.js';
import { type FittedModule, fitLora, type LoraNames } from './fit-lora.js';
import { type LoraHeader, readLoraHeader } from './lora-header.js';

/** A LoRA on top of a checkpoint. */
export interface LoraSource {
  readonly path: string;
  /** Strength in the denoiser. */
  readonly weight: number;
  /** Strength in the text encoders. Omitted: the denoiser's. */
  readonly textEncoderWeight?: number | undefined;
}

/** A LoRA file that was read and fitted to a model. */
export interface LoraFile {
  readonly header: LoraHeader;
  readonly modules: readonly LoraModule[];
  /** Keys that match nothing of the model. */
  readonly unmatched: readonly string[];
}

export interface LoraModule extends Omit<FittedModule, 'alpha'> {
  readonly alpha: number;
}

/**
 * Reads a LoRA whole: header, fit and numbers. Its factors stay in the file.
 * @throws InferenceError of the header and the fit; CHECKPOINT_INVALID for a NaN or an infinity
 */
export async function readLora(path: string, names: LoraNames): Promise<LoraFile> {
  const header = await readLoraHeader(path);
  const { modules, unmatched } = fitLora(header, names);
  const reader = await open(header.file, 'r');
  try {
    return {
      header,
      unmatched,
      modules: await Promise.all(modules.map((module) => withNumbers(path, module, reader))),
    };
  } finally {
    await reader.close();
  }
}

/**
 * Reads LoRAs and returns what they add to the weights of each component of the model.
 * @param denoiser the component that takes a LoRA's `weight`; the others are text encoders
 * @throws InferenceError for a LoRA that cannot be read or does not fit
 */
export async function readLoraUpdates(
  loras: readonly LoraSource[],
  names: LoraNames,
  denoiser: string,
): Promise<WeightUpdates> {
  const updates = new Map<string, Map<string, LowRankUpdate[]>>();
  const files = await Promise.all(loras.map(async (lora) => ({ ...lora, file: await readLora(lora.path, names) })));
  for (const { file, weight, textEncoderWeight = weight } of files) {
    for (const { target, down, up, alpha } of file.modules) {
      const { component, key } = target;
      const strength = component === denoiser ? weight : textEncoderWeight;
      if (strength === 0) continue;
      const scale = (strength * alpha) / (down.shape[0] ?? 1);
      const ofComponent = updates.get(component) ?? new Map<string, LowRankUpdate[]>();
      updates.set(component, ofComponent);
      const update = { down, up, scale, name: `${file.header.path}: ${component}.${key}` };
      ofComponent.set(key, [...(ofComponent.get(key) ?? []), update]);
    }
  }
  return updates;
}

type Reader = Awaited<ReturnType<typeof open>>;

async function withNumbers(path: string, { alpha, ...module }: FittedModule, reader: Reader): Promise<LoraModule> {
  for (const factor of [module.down, module.up]) await readFinite(path, factor, reader);
  // Without one it is the rank, and the two cancel out.
  const found = alpha === undefined ? (module.down.shape[0] ?? 1) : await readScalar(path, alpha, reader);
  return { ...module, alpha: found };
}

/** LoRA files are small: a NaN in one is found here rather than in a black image. */
async function readFinite(path: string, record: LowRankFactor, reader: Reader): Promise<Uint8Array> {
  const bytes = await read(record, reader);
  const [words, exponent] =
    record.dtype === 'F32'
      ? [new Uint32Array(bytes.buffer), 0x7f800000]
      : [new Uint16Array(bytes.buffer), record.dtype === 'F16' ? 0x7c00 : 0x7f80];
  for (const word of words) {
    // An exponent of all ones is infinity or no number. The sign bit of a 32-bit word must not turn it negative.
    if ((word & exponent) >>> 0 === exponent) refuse(path, `has a NaN or an infinity in ${record.name}`);
  }
  return bytes;
}

async function readScalar(path: string, record: LowRankFactor, reader: Reader): Promise<number> {
  const bytes = await readFinite(path, record, reader);
  const elements = record.shape.reduce((product, dim) => product * dim, 1);
  if (elements !== 1) return refuse(path, `has ${elements} numbers in ${record.name}, must be 1`);
  return floatsFrom(record.dtype, bytes)[0] ?? 0;
}

async function read({ offset, length }: TensorRecord, reader: Reader): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  await reader.read(bytes, 0, length, offset);
  return bytes;
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}
