import { z } from 'zod';
import { InferenceError } from '../../../errors.js';
import { MAX_LAYERS } from '../../../weights/weight-shapes.js';
import { layerCount, parseComponentConfig } from '../../common/component-config.js';
import type { ImageEncoderConfig } from '../../common/image-encoder-config.js';

const counts = z.array(z.int().min(1)).min(1).max(MAX_LAYERS);
const layers = layerCount(1);
/** Either one number for all blocks or one for each. */
const perBlock = z.union([z.int().min(1), counts]);

/** `unet/config.json`: values that do not follow from the shapes of the weights. Defaults are diffusers' own. */
export const unetSchema = z.object({
  _class_name: z.literal('UNet2DConditionModel').default('UNet2DConditionModel'),
  in_channels: z.int().min(1).default(4),
  out_channels: z.int().min(1).default(4),
  sample_size: z.int().min(1).default(128),
  block_out_channels: counts,
  layers_per_block: z.union([layers, z.array(layers).min(1)]).default(2),
  down_block_types: z.array(z.enum(['DownBlock2D', 'CrossAttnDownBlock2D'])),
  up_block_types: z.array(z.enum(['UpBlock2D', 'CrossAttnUpBlock2D'])),
  // 0 stands beside blocks without attention.
  transformer_layers_per_block: z.union([layerCount(0), z.array(layerCount(0)).min(1)]).default(1),
  // Named for a mistake that released configurations depend on: it is the number of heads.
  attention_head_dim: perBlock.default(8),
  num_attention_heads: perBlock.nullish(),
  cross_attention_dim: z.int().min(1),
  use_linear_projection: z.boolean().default(false),
  addition_embed_type: z.literal('text_time'),
  addition_time_embed_dim: z.int().min(2),
  projection_class_embeddings_input_dim: z.int().min(1),
  norm_num_groups: z.int().min(1).default(32),
  norm_eps: z.number().positive().default(1e-5),
  act_fn: z.enum(['silu', 'swish']).default('silu'),
  flip_sin_to_cos: z.boolean().default(true),
  freq_shift: z.number().default(0),
});

export const vaeSchema = z.object({
  _class_name: z.literal('AutoencoderKL').default('AutoencoderKL'),
  in_channels: z.int().min(1).default(3),
  out_channels: z.literal(3).default(3),
  latent_channels: z.int().min(1).default(4),
  block_out_channels: counts,
  layers_per_block: layers.default(1),
  norm_num_groups: z.int().min(1).default(32),
  act_fn: z.enum(['silu', 'swish']).default('silu'),
  scaling_factor: z.number().positive().default(0.18215),
  // False for a VAE that float16 is wide enough for.
  force_upcast: z.boolean().default(true),
  shift_factor: z.number().nullish(),
  latents_mean: z.array(z.number()).nullish(),
  latents_std: z.array(z.number().positive()).nullish(),
  use_quant_conv: z.boolean().default(true),
  use_post_quant_conv: z.boolean().default(true),
  mid_block_add_attention: z.boolean().default(true),
});

export const textEncoderSchema = z.object({
  vocab_size: z.int().min(1).default(49408),
  hidden_size: z.int().min(1).default(512),
  intermediate_size: z.int().min(1).default(2048),
  num_hidden_layers: layerCount(2).default(12),
  num_attention_heads: z.int().min(1).default(8),
  max_position_embeddings: z.int().min(1).default(77),
  hidden_act: z.enum(['quick_gelu', 'gelu']).default('quick_gelu'),
  layer_norm_eps: z.number().positive().default(1e-5),
  projection_dim: z.int().min(1).default(512),
  eos_token_id: z.int().default(49407),
});

type UNetFile = z.infer<typeof unetSchema>;

/** The UNet's configuration with every per-block number spelled out, outermost block first. */
export interface UNetConfig extends Omit<UNetFile, 'layers_per_block' | 'transformer_layers_per_block'> {
  readonly layers: readonly number[];
  /** Transformer blocks of each attention. */
  readonly depth: readonly number[];
  readonly heads: readonly number[];
}

export type VaeConfig = z.infer<typeof vaeSchema>;
export type TextEncoderConfig = z.infer<typeof textEncoderSchema>;

/** What an IP-Adapter makes tokens of: `base` of the embedding of the whole image, `plus` of the states before the encoder's last layer. */
export type ImageProjectionConfig =
  | { readonly kind: 'base'; readonly tokens: number }
  | {
      readonly kind: 'plus';
      readonly tokens: number;
      readonly width: number;
      readonly layers: number;
      readonly heads: number;
      /** Channels inside of its feed-forward layers. */
      readonly inner: number;
    };

/** An IP-Adapter, and the image encoder that it was trained with. */
export interface ImagePromptConfig {
  readonly encoder: ImageEncoderConfig;
  readonly projection: ImageProjectionConfig;
}

export interface SdxlConfig {
  readonly forceZerosForEmptyPrompt: boolean;
  readonly unet: UNetConfig;
  readonly vae: VaeConfig;
  readonly textEncoder: TextEncoderConfig;
  readonly textEncoder2: TextEncoderConfig;
  /** Of an IP-Adapter. Undefined for a model without one. */
  readonly imagePrompt?: ImagePromptConfig | undefined;
  /** The file's content; each scheduler reads its own options from it. */
  readonly scheduler: Readonly<Record<string, unknown>>;
}

/** The same from values that stand in no `config.json`. `path` is what messages name. */
export function parseUNetConfig(values: unknown, path: string): UNetConfig {
  return spellOutUNet(parse(unetSchema, values, path), path);
}

export function parseVaeConfig(values: unknown, path: string): VaeConfig {
  return parse(vaeSchema, values, path);
}

export function parseTextEncoderConfig(values: unknown, path: string): TextEncoderConfig {
  return parse(textEncoderSchema, values, path);
}

function parse<T>(schema: z.ZodType<T>, values: unknown, path: string): T {
  return parseComponentConfig(schema, values, { model: 'an SDXL', path });
}

/** Spells out per-block numbers. `path` is what messages name. */
export function spellOutUNet(unet: UNetFile, path: string): UNetConfig {
  const blocks = unet.block_out_channels.length;
  const each = (field: string, value: number | readonly number[]): readonly number[] => {
    const list = typeof value === 'number' ? new Array<number>(blocks).fill(value) : value;
    if (list.length === blocks) return list;
    throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${field} has ${list.length} entries, must have ${blocks}`);
  };
  for (const field of ['down_block_types', 'up_block_types'] as const) {
    if (unet[field].length !== blocks) {
      throw new InferenceError(
        'CHECKPOINT_INVALID',
        `${path}: ${field} has ${unet[field].length} entries, must have ${blocks}`,
      );
    }
  }
  const { layers_per_block, transformer_layers_per_block, ...rest } = unet;
  return {
    ...rest,
    layers: each('layers_per_block', layers_per_block),
    depth: each('transformer_layers_per_block', transformer_layers_per_block),
    heads: each('attention_head_dim', unet.num_attention_heads ?? unet.attention_head_dim),
  };
}
