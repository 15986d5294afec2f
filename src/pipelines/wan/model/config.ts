import { z } from 'zod';
import { InferenceError } from '../../../errors.js';
import { MAX_LAYERS } from '../../../weights/weight-shapes.js';
import { layerCount, parseComponentConfig } from '../../common/component-config.js';
import type { ImageEncoderConfig } from '../../common/image-encoder-config.js';

/** Colours of a pixel: red, green, blue. */
export const COLOURS = 3;

/** Mean and deviation of the latents of the released VAE, a channel each: wan/modules/vae.py of the original code. */
const LATENTS_MEAN = [
  -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
  -0.9497, 0.2503, -0.2921,
];
const LATENTS_STD = [
  2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
  2.8251, 1.916,
];

/** The same of WAN 2.2's VAE, of 48 channels: wan/modules/vae2_2.py of its code. */
export const LATENTS_MEAN_2_2 = [
  -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.157, -0.0098,
  0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109,
  0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.052, 0.3748, 0.0152,
  0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
];
export const LATENTS_STD_2_2 = [
  0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454,
  0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069,
  0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.06, 0.3943, 0.5537,
  0.5444, 0.4089, 0.7468, 0.7744,
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
  num_layers: layerCount(1).default(40),
  cross_attn_norm: z.boolean().default(true),
  qk_norm: z.literal('rms_norm_across_heads').default('rms_norm_across_heads'),
  eps: z.number().positive().default(1e-6),
  // Image-to-video only: width of the image encoder's states, and width of their projections in the blocks.
  image_dim: z.int().min(1).nullish(),
  added_kv_proj_dim: z.int().min(1).nullish(),
  // Models of a first and a last frame only: tokens of two images.
  pos_embed_seq_len: z.int().min(2).multipleOf(2).nullish(),
  // Fun-Control V1.1 only: a reference image stands before the video's own frames.
  add_ref_conv: z.boolean().default(false),
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
  dim_mult: z.array(z.int().min(1)).min(1).max(MAX_LAYERS).default([1, 2, 4, 4]),
  num_res_blocks: layerCount(1).default(2),
  attn_scales: z.array(z.number()).max(0, 'attention outside the middle block is not served').default([]),
  temperal_downsample: z.array(z.boolean()).default([false, true, true]),
  // Of a patch of pixels: three colours of each.
  in_channels: z.int().min(1).default(3),
  out_channels: z.int().min(1).default(3),
  // WAN 2.2 only: shortcuts past each block that changes the size, and pixels folded into channels.
  is_residual: z.boolean().default(false),
  patch_size: z.int().min(1).max(8).nullish(),
  latents_mean: z.array(z.number()).default(LATENTS_MEAN),
  latents_std: z.array(z.number().positive()).default(LATENTS_STD),
});

/** `text_encoder/config.json`. Defaults are transformers' own for UMT5. */
export const textEncoderSchema = z.object({
  vocab_size: z.int().min(1).default(250112),
  d_model: z.int().min(1).default(512),
  d_kv: z.int().min(1).default(64),
  d_ff: z.int().min(1).default(1024),
  num_layers: layerCount(1).default(8),
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

/** @throws InferenceError CHECKPOINT_INVALID where the lengths of its lists or channels do not agree */
export function checkVae(vae: VaeConfig, path: string): VaeConfig {
  const counts: readonly (readonly [string, number, number])[] = [
    ['temperal_downsample', vae.temperal_downsample.length, vae.dim_mult.length - 1],
    ['latents_mean', vae.latents_mean.length, vae.z_dim],
    ['latents_std', vae.latents_std.length, vae.z_dim],
  ];
  const colours = COLOURS * (vae.patch_size ?? 1) ** 2;
  for (const field of ['in_channels', 'out_channels'] as const) {
    if (vae[field] === colours) continue;
    const pixels = `patches of ${vae.patch_size ?? 1} pixels`;
    throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${field} ${vae[field]} must be ${colours} with ${pixels}`);
  }
  for (const [field, length, wanted] of counts) {
    if (length === wanted) continue;
    throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${field} has ${length} entries, must have ${wanted}`);
  }
  if (vae.is_residual) checkShortcuts(vae, path);
  return vae;
}

/** A shortcut takes the mean of several channels, or repeats each several times: of pixels and frames that it moves, a whole number. */
function checkShortcuts({ dim_mult: widths, temperal_downsample: halvesTime }: VaeConfig, path: string): void {
  const refuse = (from: number, to: number, network: string): never => {
    const problem = `dim_mult ${widths.join(', ')} has no shortcut from ${from} to ${to} in the ${network}`;
    throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${problem}`);
  };
  const moved = widths.map((_, i) => (i === widths.length - 1 ? 1 : halvesTime[i] ? 8 : 4));
  for (const [i, width] of widths.entries()) {
    const before = widths[i - 1] ?? 1;
    if ((before * (moved[i] ?? 1)) % width !== 0) refuse(before, width, 'encoder');
  }
  // The decoder goes the other way: its first block stays as wide as it begins.
  const [ups, places] = [[...widths].reverse(), [...moved].reverse().slice(1)];
  for (const [i, place] of places.entries()) {
    const [from = 1, to = 1] = [ups[Math.max(0, i - 1)], ups[i]];
    if ((to * place) % from !== 0) refuse(from, to, 'decoder');
  }
}

function parse<T>(schema: z.ZodType<T>, values: unknown, path: string): T {
  return parseComponentConfig(schema, values, { model: 'a WAN', path });
}
