import { z } from 'zod';
import { InferenceError } from '../../../errors.js';
import { parseComponentConfig } from '../../common/component-config.js';
import type { ImageEncoderConfig } from '../../common/image-encoder-config.js';

/** Mean and deviation of the latents of the released VAE, a channel each: wan/modules/vae.py of the original code. */
const LATENTS_MEAN = [
  -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
  -0.9497, 0.2503, -0.2921,
];
const LATENTS_STD = [
  2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
  2.8251, 1.916,
];

/** `transformer/config.json`. Defaults are diffusers' own. */
export const transformerSchema = z.object({
  _class_name: z.string().default('WanTransformer3DModel'),
  patch_size: z.tuple([z.literal(1), z.literal(2), z.literal(2)]).default([1, 2, 2]),
  num_attention_heads: z.int().min(1).default(40),
  // A head's channels turn in pairs along three axes.
  attention_head_dim: z.int().min(6).multipleOf(2).default(128),
  in_channels: z.int().min(1).default(16),
  out_channels: z.int().min(1).nullish(),
  text_dim: z.int().min(1).default(4096),
  freq_dim: z.int().min(2).multipleOf(2).default(256),
  ffn_dim: z.int().min(1).default(13824),
  num_layers: z.int().min(1).default(40),
  cross_attn_norm: z.boolean().default(true),
  qk_norm: z.literal('rms_norm_across_heads').default('rms_norm_across_heads'),
  eps: z.number().positive().default(1e-6),
  // Image-to-video only: width of the image encoder's states, and width of their projections in the blocks.
  image_dim: z.int().min(1).nullish(),
  added_kv_proj_dim: z.int().min(1).nullish(),
  // Models of a first and a last frame only: tokens of two images.
  pos_embed_seq_len: z.int().min(2).multipleOf(2).nullish(),
  // VACE only.
  vace_layers: z.array(z.int().min(0)).min(1).default([0, 5, 10, 15, 20, 25, 30, 35]),
  vace_in_channels: z.int().min(1).default(96),
});

/** `vae/config.json`. Defaults are diffusers' own, the statistics of the latents among them. */
export const vaeSchema = z.object({
  _class_name: z.literal('AutoencoderKLWan').default('AutoencoderKLWan'),
  base_dim: z.int().min(1).default(96),
  decoder_base_dim: z.int().min(1).nullish(),
  z_dim: z.int().min(1).default(16),
  dim_mult: z.array(z.int().min(1)).min(1).default([1, 2, 4, 4]),
  num_res_blocks: z.int().min(1).default(2),
  attn_scales: z.array(z.number()).max(0, 'attention outside the middle block is not served').default([]),
  temperal_downsample: z.array(z.boolean()).default([false, true, true]),
  in_channels: z.literal(3).default(3),
  out_channels: z.literal(3).default(3),
  is_residual: z.literal(false, 'a residual VAE is of WAN 2.2').default(false),
  patch_size: z.literal(1, 'a VAE of patches is of WAN 2.2').nullish(),
  latents_mean: z.array(z.number()).default(LATENTS_MEAN),
  latents_std: z.array(z.number().positive()).default(LATENTS_STD),
});

/** `text_encoder/config.json`. Defaults are transformers' own for UMT5. */
export const textEncoderSchema = z.object({
  vocab_size: z.int().min(1).default(250112),
  d_model: z.int().min(1).default(512),
  d_kv: z.int().min(1).default(64),
  d_ff: z.int().min(1).default(1024),
  num_layers: z.int().min(1).default(8),
  num_heads: z.int().min(1).default(6),
  relative_attention_num_buckets: z.int().min(2).default(32),
  relative_attention_max_distance: z.int().min(2).default(128),
  layer_norm_epsilon: z.number().positive().default(1e-6),
  feed_forward_proj: z.literal('gated-gelu').default('gated-gelu'),
});

export type TransformerConfig = z.infer<typeof transformerSchema>;
export type VaeConfig = z.infer<typeof vaeSchema>;
export type TextEncoderConfig = z.infer<typeof textEncoderSchema>;
export interface WanConfig {
  readonly transformer: TransformerConfig;
  readonly vae: VaeConfig;
  readonly textEncoder: TextEncoderConfig;
  /** Undefined for a transformer that takes no images. */
  readonly imageEncoder: ImageEncoderConfig | undefined;
  /** The file's content; each scheduler reads its own options from it. */
  readonly scheduler: Readonly<Record<string, unknown>>;
}

/** The same from values that stand in no `config.json`. `path` is what messages name. */
export function parseTransformerConfig(values: unknown, path: string): TransformerConfig {
  return parse(transformerSchema, values, path);
}

export function parseVaeConfig(values: unknown, path: string): VaeConfig {
  return checkVae(parse(vaeSchema, values, path), path);
}

export function parseTextEncoderConfig(values: unknown, path: string): TextEncoderConfig {
  return parse(textEncoderSchema, values, path);
}

/** @throws InferenceError CHECKPOINT_INVALID where the lengths of its lists do not agree */
export function checkVae(vae: VaeConfig, path: string): VaeConfig {
  const counts: readonly (readonly [string, number, number])[] = [
    ['temperal_downsample', vae.temperal_downsample.length, vae.dim_mult.length - 1],
    ['latents_mean', vae.latents_mean.length, vae.z_dim],
    ['latents_std', vae.latents_std.length, vae.z_dim],
  ];
  for (const [field, length, wanted] of counts) {
    if (length === wanted) continue;
    throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${field} has ${length} entries, must have ${wanted}`);
  }
  return vae;
}

function parse<T>(schema: z.ZodType<T>, values: unknown, path: string): T {
  return parseComponentConfig(schema, values, { model: 'a WAN', path });
}
