import { open } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { type StoredFloats, storedOf, type WeightUpdate } from '../../graph/weight-update.js';
import { elementCount } from '../../std/element-count.js';
import { isFiniteFloat8 } from '../../weights/float8.js';
import { floatsFrom } from '../../weights/half-floats.js';
import { floatTypes, type TensorRecord } from '../../weights/safetensors.js';
import type { WeightUpdates } from '../common/build-networks.js';
import { type FittedUpdate, fitLora, type LoraNames } from './fit-lora.js';
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
  readonly updates: readonly LoraUpdate[];
  /** Keys that match nothing of the model. */
  readonly unmatched: readonly string[];
}

export interface LoraUpdate {
  readonly component: string;
  /** Key of the weight or the bias in its component. */
  readonly key: string;
  /** At a strength of 1. */
  readonly update: WeightUpdate;
}

/**
 * Reads a LoRA whole: header, fit and numbers. Its factors stay in the file.
 * @throws InferenceError of the header and the fit; CHECKPOINT_INVALID for a NaN or an infinity
 */
export async function readLora(path: string, names: LoraNames): Promise<LoraFile> {
  const header = await readLoraHeader(path);
  const fitted = fitLora(header, names);
  const reader = await open(header.file, 'r');
  try {
    const updates: LoraUpdate[] = [];
    for (const update of fitted.updates) updates.push(await withNumbers(path, update, reader));
    return { header, unmatched: fitted.unmatched, updates };
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
  const updates = new Map<string, Map<string, WeightUpdate[]>>();
  const files = await Promise.all(loras.map(async (lora) => ({ ...lora, file: await readLora(lora.path, names) })));
  for (const { file, weight, textEncoderWeight = weight } of files) {
    for (const { component, key, update } of file.updates) {
      const strength = component === denoiser ? weight : textEncoderWeight;
      if (strength === 0) continue;
      const ofComponent = updates.get(component) ?? new Map<string, WeightUpdate[]>();
      updates.set(component, ofComponent);
      const ofKey = ofComponent.get(key) ?? [];
      ofComponent.set(key, ofKey);
      ofKey.push({ ...update, scale: strength * update.scale });
    }
  }
  return updates;
}

type Reader = Awaited<ReturnType<typeof open>>;

async function withNumbers(
  path: string,
  { component, key, update, scale }: FittedUpdate,
  reader: Reader,
): Promise<LoraUpdate> {
  for (const record of storedOf(update)) await readFinite(path, record, reader);
  const factor = typeof scale === 'number' ? scale : (await readScalar(path, scale.alpha, reader)) / scale.rank;
  return { component, key, update: { ...update, scale: factor } };
}

/** LoRA files are small: a NaN in one is found here rather than in a black image. */
async function readFinite(path: string, record: StoredFloats, reader: Reader): Promise<Uint8Array> {
  const bytes = await read(path, record, reader);
  const { dtype } = record;
  if (dtype === 'F8_E4M3' || dtype === 'F8_E5M2') {
    if (!bytes.every((byte) => isFiniteFloat8(dtype, byte))) refuse(path, `has a NaN or an infinity in ${record.name}`);
    return bytes;
  }
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

/** Reads the number of a tensor of one element, of any type that trainers store an alpha in. */
async function readScalar(path: string, record: TensorRecord, reader: Reader): Promise<number> {
  const elements = elementCount(record.shape);
  if (elements !== 1) return refuse(path, `has ${elements} numbers in ${record.name}, must be 1`);
  const bytes = await read(path, record, reader);
  const value = scalarOf(record.dtype, bytes);
  if (value === undefined) return refuse(path, `has ${record.name} of type ${record.dtype}, which is no number`);
  return Number.isFinite(value) ? value : refuse(path, `has a NaN or an infinity in ${record.name}`);
}

function scalarOf(dtype: string, bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case 'F64':
      return view.getFloat64(0, true);
    case 'I64':
      return Number(view.getBigInt64(0, true));
    case 'I32':
      return view.getInt32(0, true);
    case 'I16':
      return view.getInt16(0, true);
    case 'I8':
      return view.getInt8(0);
    case 'U8':
      return view.getUint8(0);
    default: {
      const type = floatTypes.find((known) => known === dtype);
      return type && floatsFrom(type, bytes)[0];
    }
  }
}

async function read(
  path: string,
  { offset, length, name }: TensorRecord,
  reader: Reader,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  const { bytesRead } = await reader.read(bytes, 0, length, offset);
  if (bytesRead !== length) refuse(path, `became shorter while ${name} was read`);
  return bytes;
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}
