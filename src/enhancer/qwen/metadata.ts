import type { MetadataValue } from '../../weights/gguf/gguf-writer.js';
import type { QwenConfig } from './config.js';
import { type GgufFileType, ggufFileTypes } from './gguf-file-types.js';
import type { TokenKind, Vocabulary } from './vocabulary.js';

const tokenTypes: Readonly<Record<TokenKind, number>> = { normal: 1, control: 3, 'user-defined': 4, unused: 5 };

/**
 * The metadata that llama.cpp reads for a qwen2. Keys and rules:
 * https://github.com/ggml-org/llama.cpp/blob/2bbcf7fc93a460f04d5709756a48b2408443eecb/conversion/qwen.py
 */
export function qwenMetadata(
  name: string,
  config: QwenConfig,
  vocabulary: Vocabulary,
  type: GgufFileType,
): Map<string, MetadataValue> {
  const uint32 = (value: number): MetadataValue => ({ kind: 'uint32', value });
  const float32 = (value: number): MetadataValue => ({ kind: 'float32', value });
  const string = (value: string): MetadataValue => ({ kind: 'string', value });
  const { ropeScaling: scaling } = config;
  const ids = { ...config.specialIds, ...vocabulary.specialIds };
  // A configuration may be for a larger vocabulary than the checkpoint's.
  const [bos, eos, pad] = [ids.bos, ids.eos, ids.pad].map((id) =>
    id !== undefined && id < config.vocabSize ? id : undefined,
  );
  return new Map<string, MetadataValue>([
    ['general.architecture', string('qwen2')],
    ['general.type', string('model')],
    ['general.name', string(name)],
    ['general.file_type', uint32(ggufFileTypes[type])],
    // Version of the block formats, which llama.cpp needs for quantised files.
    ['general.quantization_version', uint32(2)],
    ['qwen2.vocab_size', uint32(config.vocabSize)],
    ['qwen2.block_count', uint32(config.blockCount)],
    ['qwen2.context_length', uint32(config.contextLength)],
    ['qwen2.embedding_length', uint32(config.embeddingLength)],
    ['qwen2.feed_forward_length', uint32(config.feedForwardLength)],
    ['qwen2.attention.head_count', uint32(config.headCount)],
    ['qwen2.attention.head_count_kv', uint32(config.headCountKv)],
    ['qwen2.attention.layer_norm_rms_epsilon', float32(config.rmsEpsilon)],
    ['qwen2.rope.freq_base', float32(config.ropeBase)],
    ...optional(
      scaling && [
        ['qwen2.rope.scaling.type', string(scaling.type)],
        ['qwen2.rope.scaling.factor', float32(scaling.factor)],
      ],
    ),
    ...optional(
      scaling?.originalContextLength !== undefined && [
        ['qwen2.rope.scaling.original_context_length', uint32(scaling.originalContextLength)],
      ],
    ),
    ['tokenizer.ggml.model', string('gpt2')],
    ['tokenizer.ggml.pre', string('qwen2')],
    ['tokenizer.ggml.tokens', { kind: 'strings', value: vocabulary.tokens }],
    ['tokenizer.ggml.token_type', { kind: 'int32s', value: vocabulary.kinds.map((kind) => tokenTypes[kind]) }],
    ['tokenizer.ggml.merges', { kind: 'strings', value: vocabulary.merges }],
    ...optional(bos !== undefined && [['tokenizer.ggml.bos_token_id', uint32(bos)]]),
    ...optional(eos !== undefined && [['tokenizer.ggml.eos_token_id', uint32(eos)]]),
    ...optional(pad !== undefined && [['tokenizer.ggml.padding_token_id', uint32(pad)]]),
    ['tokenizer.ggml.add_bos_token', { kind: 'bool', value: vocabulary.addBos }],
    ...optional(
      vocabulary.chatTemplate !== undefined && [['tokenizer.chat_template', string(vocabulary.chatTemplate)]],
    ),
  ]);
}

type Entries = readonly (readonly [string, MetadataValue])[];

function optional(entries: Entries | false | undefined): Entries {
  return entries || [];
}
