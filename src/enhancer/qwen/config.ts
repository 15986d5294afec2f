import { join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../../errors.js';
import { readJsonFile } from '../../std/json-file.js';

/** Largest file size: configurations take a few kilobytes. */
const CONFIG = { maxBytes: 1_000_000, missing: 'give a folder as transformers saves a model' };

const count = z.int().min(1).max(1_000_000);
const tokenIds = z.union([z.int().min(0), z.array(z.int().min(0)).max(64)]).nullish();

const ropeSchema = z.object({
  rope_type: z.string().optional(),
  /** Former name of `rope_type`. */
  type: z.string().optional(),
  rope_theta: z.number().positive().optional(),
  factor: z.number().min(1).optional(),
  original_max_position_embeddings: count.optional(),
});

const architectureSchema = z.object({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string().optional(),
  quantization_config: z.unknown().optional(),
});

const configSchema = z.object({
  vocab_size: count.max(2_000_000),
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count.max(1_000),
  num_attention_heads: count,
  num_key_value_heads: count.optional(),
  head_dim: count.nullish(),
  hidden_act: z.literal('silu').default('silu'),
  max_position_embeddings: count.max(100_000_000).default(32_768),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().optional(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  tie_word_embeddings: z.boolean().default(false),
  use_sliding_window: z.boolean().default(false),
  sliding_window: count.max(100_000_000).nullish(),
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
  pad_token_id: tokenIds,
});

const generationSchema = z.object({ bos_token_id: tokenIds, eos_token_id: tokenIds, pad_token_id: tokenIds });

/** Configuration of a Qwen2, in the terms of GGUF's keys. */
export interface QwenConfig {
  readonly vocabSize: number;
  readonly embeddingLength: number;
  readonly feedForwardLength: number;
  readonly blockCount: number;
  readonly headCount: number;
  readonly headCountKv: number;
  readonly contextLength: number;
  readonly rmsEpsilon: number;
  readonly ropeBase: number;
  /** Longer contexts by YaRN or linear interpolation. Omitted: the model has none. */
  readonly ropeScaling?: {
    readonly type: 'yarn' | 'linear';
    readonly factor: number;
    readonly originalContextLength?: number;
  };
  /** The output layer is the token embedding. */
  readonly isTied: boolean;
  /** Ids of special tokens in the configuration. The tokenizer's own ids take precedence. */
  readonly specialIds: { readonly bos?: number; readonly eos?: number; readonly pad?: number };
}

/**
 * Reads `config.json`, and `generation_config.json` if it exists.
 * @throws InferenceError MODEL_UNSUPPORTED for another architecture, CHECKPOINT_INVALID for an invalid configuration
 */
export async function readQwenConfig(folder: string): Promise<QwenConfig> {
  const path = join(folder, 'config.json');
  const unsupported = (problem: string): never => {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} ${problem}`);
  };
  const {
    architectures,
    model_type: modelType,
    quantization_config,
  } = await readJsonFile(path, architectureSchema, CONFIG);
  const architecture = architectures?.[0] ?? modelType ?? 'no architecture';
  if (architecture !== 'Qwen2ForCausalLM') {
    unsupported(`is of ${JSON.stringify(architecture)}; only Qwen2ForCausalLM is converted (Qwen2 and Qwen2.5)`);
  }
  if (quantization_config != null) unsupported('is of a quantised model; give the one it was made from');
  const config = await readJsonFile(path, configSchema, CONFIG);
  const generation = await readJsonFile(join(folder, 'generation_config.json'), generationSchema, {
    ...CONFIG,
    fallback: {},
  });
  const { hidden_size: width, num_attention_heads: heads, num_key_value_heads: headsKv = heads } = config;
  if (width % heads !== 0 || heads % headsKv !== 0) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${path} has hidden_size ${width}, ${heads} heads and ${headsKv} key-value heads, which do not divide each other`,
    );
  }
  if ((config.head_dim ?? width / heads) !== width / heads) {
    unsupported(`has head_dim ${config.head_dim}; a Qwen2 has hidden_size / num_attention_heads, ${width / heads}`);
  }
  const rope = config.rope_parameters ?? config.rope_scaling ?? {};
  const type = rope.rope_type ?? rope.type ?? 'default';
  if (type !== 'default' && type !== 'yarn' && type !== 'linear') {
    unsupported(`scales rotary positions by "${type}"; yarn and linear are known`);
  }
  return {
    vocabSize: config.vocab_size,
    embeddingLength: width,
    feedForwardLength: config.intermediate_size,
    blockCount: config.num_hidden_layers,
    headCount: heads,
    headCountKv: headsKv,
    contextLength: contextOf(config),
    rmsEpsilon: config.rms_norm_eps,
    // transformers' default.
    // https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/qwen2/configuration_qwen2.py
    ropeBase: rope.rope_theta ?? config.rope_theta ?? 10_000,
    ...((type === 'yarn' || type === 'linear') && {
      ropeScaling: {
        type,
        factor: rope.factor ?? 1,
        ...(rope.original_max_position_embeddings !== undefined && {
          originalContextLength: rope.original_max_position_embeddings,
        }),
      },
    }),
    isTied: config.tie_word_embeddings,
    specialIds: {
      ...idOf('bos', config.bos_token_id, generation.bos_token_id),
      ...idOf('eos', config.eos_token_id, generation.eos_token_id),
      ...idOf('pad', config.pad_token_id, generation.pad_token_id),
    },
  };
}

/** llama.cpp's qwen2 attends to all tokens. Up to the size of the window that is the same. */
function contextOf({
  max_position_embeddings,
  use_sliding_window,
  sliding_window,
}: z.infer<typeof configSchema>): number {
  return use_sliding_window ? Math.min(max_position_embeddings, sliding_window ?? 4_096) : max_position_embeddings;
}

function idOf(name: string, ...given: (number | number[] | null | undefined)[]): { readonly [name: string]: number } {
  const id = given.flatMap((ids) => ids ?? [])[0];
  return id === undefined ? {} : { [name]: id };
}
