import { open } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { floatsFrom } from '../../weights/half-floats.js';
import { floatTypes, type TensorRecord } from '../../weights/safetensors.js';
import { readEmbeddingFile, vectorsOf, widthOf } from './embedding-file.js';

/** An embedding that a request names. */
export interface EmbeddingSource {
  readonly name: string;
  readonly path: string;
}

/** An embedding, fitted to the text encoders of a model. */
export interface Embedding {
  readonly name: string;
  /** Vectors of each encoder; undefined for an encoder that reads the name as text. */
  readonly encoders: readonly (EncoderVectors | undefined)[];
}

export interface EncoderVectors {
  readonly count: number;
  /** [count, width] */
  readonly values: Float32Array;
}

/**
 * Reads an embedding and fits it to SDXL's two text encoders.
 * @param widths of the two encoders
 * @throws InferenceError of its header; MODEL_UNSUPPORTED for widths of another model; CHECKPOINT_INVALID for a NaN or an infinity
 */
export async function readEmbedding(
  { name, path }: EmbeddingSource,
  widths: readonly [number, number],
): Promise<Embedding> {
  const { encoders, unnamed } = await readEmbeddingFile(path);
  const records: (TensorRecord | undefined)[] = [encoders.get('clip_l'), encoders.get('clip_g')];
  for (const record of unnamed) {
    const at = widths.findIndex((width, i) => width === widthOf(record) && records[i] === undefined);
    if (at < 0) refuseWidth(path, record, widths);
    records[at] = record;
  }
  const vectors: (EncoderVectors | undefined)[] = [];
  for (const [i, record] of records.entries()) {
    if (record !== undefined && widthOf(record) !== widths[i]) refuseWidth(path, record, widths);
    vectors.push(record && { count: vectorsOf(record), values: await readFinite(path, record) });
  }
  return { name, encoders: vectors };
}

async function readFinite(path: string, record: TensorRecord): Promise<Float32Array> {
  const type = floatTypes.find((each) => each === record.dtype);
  if (type === undefined) throw new Error('the header of an embedding let a type through');
  const bytes = new Uint8Array(record.length);
  const file = await open(record.file, 'r');
  try {
    const { bytesRead } = await file.read(bytes, 0, bytes.length, record.offset);
    if (bytesRead !== bytes.length) refuse(path, `became shorter while ${record.name} was read`);
  } finally {
    await file.close();
  }
  const values = floatsFrom(type, bytes);
  if (!values.every(Number.isFinite)) refuse(path, `has a NaN or an infinity in ${record.name}`);
  return values;
}

function refuseWidth(path: string, record: TensorRecord, widths: readonly [number, number]): never {
  throw new InferenceError(
    'MODEL_UNSUPPORTED',
    `${path} has vectors of ${widthOf(record)} numbers; the model's text encoders take ${widths.join(' and ')}`,
  );
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}
