import { InferenceError, listProblems } from '../../errors.js';
import { elementCount } from '../../std/element-count.js';
import { type WrittenType, writtenBytes } from '../../weights/gguf/gguf-types.js';
import type { GgufTensor } from '../../weights/gguf/gguf-writer.js';
import { quantize } from '../../weights/gguf/quantize.js';
import { floatsFrom } from '../../weights/half-floats.js';
import { readChunks } from '../../weights/read-chunks.js';
import { type FloatType, floatBytes, floatTypes, type TensorRecord } from '../../weights/safetensors.js';
import type { WeightFiles } from '../../weights/weight-files.js';
import type { QwenConfig } from './config.js';

/** Number of elements that are converted at once: a multiple of every block, 8 MB as F32. */
const CHUNK_ELEMENTS = 2 ** 21;

interface Wanted {
  /** Name in the checkpoint. */
  readonly key: string;
  /**
   * Name in GGUF.
   * https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/docs/gguf.md#standardized-tensor-names
   */
  readonly name: string;
  readonly shape: readonly number[];
}

/**
 * Every tensor of a Qwen2 in the order of use. q and k need no permutation: rotary halves are split as in llama.cpp's
 * NeoX kind.
 */
export function wantedTensors(config: QwenConfig): readonly Wanted[] {
  const { embeddingLength: width, feedForwardLength: wide, vocabSize, headCount, headCountKv, blockCount } = config;
  const kv = (width / headCount) * headCountKv;
  const tensors: Wanted[] = [
    { key: 'model.embed_tokens.weight', name: 'token_embd.weight', shape: [vocabSize, width] },
  ];
  for (let i = 0; i < blockCount; i += 1) {
    const add = (key: string, name: string, ...shape: number[]) =>
      tensors.push({ key: `model.layers.${i}.${key}`, name: `blk.${i}.${name}`, shape });
    add('input_layernorm.weight', 'attn_norm.weight', width);
    for (const [letter, rows] of [
      ['q', width],
      ['k', kv],
      ['v', kv],
    ] as const) {
      add(`self_attn.${letter}_proj.weight`, `attn_${letter}.weight`, rows, width);
      add(`self_attn.${letter}_proj.bias`, `attn_${letter}.bias`, rows);
    }
    add('self_attn.o_proj.weight', 'attn_output.weight', width, width);
    add('post_attention_layernorm.weight', 'ffn_norm.weight', width);
    add('mlp.gate_proj.weight', 'ffn_gate.weight', wide, width);
    add('mlp.up_proj.weight', 'ffn_up.weight', wide, width);
    add('mlp.down_proj.weight', 'ffn_down.weight', width, wide);
  }
  tensors.push({ key: 'model.norm.weight', name: 'output_norm.weight', shape: [width] });
  if (!config.isTied) tensors.push({ key: 'lm_head.weight', name: 'output.weight', shape: [vocabSize, width] });
  return tensors;
}

/** Size of a model's weights in a GGUF file, in bytes. @param type storage type of the matrices */
export function weightBytes(config: QwenConfig, type: WrittenType): number {
  return wantedTensors(config).reduce(
    (sum, { shape }) => sum + writtenBytes(typeOf(type, shape), elementCount(shape)),
    0,
  );
}

/**
 * The tensors of a checkpoint for a GGUF file.
 * @param type storage type of the matrices; norms and biases stay F32, because llama.cpp adds and multiplies in F32
 * @throws InferenceError CHECKPOINT_INVALID that lists every missing, spare and mis-shaped tensor
 */
export function ggufTensors(files: WeightFiles, config: QwenConfig, type: WrittenType): readonly GgufTensor[] {
  const problems: string[] = [];
  const wanted = wantedTensors(config);
  const tensors = wanted.flatMap(({ key, name, shape }): GgufTensor[] => {
    const record = files.tensors.get(key);
    if (record === undefined) problems.push(`${key} is missing`);
    else if (record.shape.join() !== shape.join()) {
      problems.push(`${key} is [${record.shape}], config.json makes it [${shape}]`);
    } else {
      const stored = floatTypes.find((known) => known === record.dtype);
      if (stored !== undefined) {
        const written = typeOf(type, shape);
        return [{ name, shape, type: written, read: () => convertedBytes(record, stored, written) }];
      }
      problems.push(`${key} is ${record.dtype}, must be one of ${floatTypes.join(', ')}`);
    }
    return [];
  });
  const known = new Set(wanted.map(({ key }) => key));
  for (const key of files.tensors.keys())
    if (!known.has(key) && !isIdle(key, config)) problems.push(`${key} is not Qwen2's`);
  if (problems.length > 0) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${files.path} is not the Qwen2 of its config.json:\n${listProblems(problems)}`,
    );
  }
  return tensors;
}

/** Old checkpoints store buffers that follow from the configuration; some tied ones store a copy of the embedding. */
function isIdle(key: string, { isTied }: QwenConfig): boolean {
  return key.endsWith('.rotary_emb.inv_freq') || (isTied && key === 'lm_head.weight');
}

/** A row that is no whole number of blocks is stored as F16, as llama.cpp does. */
function typeOf(type: WrittenType, shape: readonly number[]): WrittenType {
  if (shape.length === 1) return 'F32';
  return type === 'Q8_0' && (shape.at(-1) ?? 0) % 32 !== 0 ? 'F16' : type;
}

/** Reads and converts a tensor piece by piece. */
async function* convertedBytes(
  record: TensorRecord,
  stored: FloatType,
  written: WrittenType,
): AsyncGenerator<Uint8Array> {
  for await (const bytes of readChunks(record, CHUNK_ELEMENTS * floatBytes[stored])) {
    yield stored === written ? bytes : convert(record, stored, written, bytes);
  }
}

function convert({ file, name }: TensorRecord, stored: FloatType, written: WrittenType, bytes: Uint8Array): Uint8Array {
  try {
    return quantize(written, floatsFrom(stored, bytes));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new InferenceError('CHECKPOINT_INVALID', `${file}: tensor "${name}" ${error.message}`);
  }
}
