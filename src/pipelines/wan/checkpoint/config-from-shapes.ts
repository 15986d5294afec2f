/** Configurations read off the tensors' shapes, for files that come without `config.json`: names as diffusers has them. */
import type { WeightFiles } from '../../../weights/weight-files.js';
import { WeightShapes } from '../../../weights/weight-shapes.js';
import {
  COLOURS,
  LATENTS_MEAN_2_2,
  LATENTS_STD_2_2,
  parseTextEncoderConfig,
  parseTransformerConfig,
  parseVaeConfig,
  type TextEncoderConfig,
  type TransformerConfig,
  type VaeConfig,
} from '../model/config.js';
import type { OriginalConfig } from './read-config.js';

/** Channels of a head in every published WAN; a smaller model names its number of heads in its `config.json`. */
const HEAD_WIDTH = 128;

/** @param original the original code's `config.json`, where the file has one beside it */
export function transformerConfigFromShapes(files: WeightFiles, original: OriginalConfig): TransformerConfig {
  const shapes = new WeightShapes(files, 'a WAN');
  const [width = 0, channels, ...patch] = shapes.of('patch_embedding.weight');
  const heads = original.num_heads ?? width / HEAD_WIDTH;
  if (!Number.isInteger(heads) || width % heads !== 0) {
    shapes.refuse(
      original.num_heads === undefined
        ? `has a transformer ${width} wide, not a multiple of ${HEAD_WIDTH}, the width of a head; put its config.json with num_heads beside it`
        : `has a transformer ${width} wide, which does not divide into the ${heads} heads of its config.json`,
    );
  }
  const vaceBlocks = shapes.range((i) => `vace_blocks.${i}.scale_shift_table`).length;
  const layers = shapes.range((i) => `blocks.${i}.scale_shift_table`).length;
  return parseTransformerConfig(
    {
      ...(vaceBlocks > 0 && {
        _class_name: 'WanVACETransformer3DModel',
        vace_layers: vaceLayers(vaceBlocks, layers, original, shapes),
        vace_in_channels: shapes.of('vace_patch_embedding.weight')[1],
      }),
      patch_size: patch,
      num_attention_heads: heads,
      attention_head_dim: width / heads,
      in_channels: channels,
      out_channels: (shapes.of('proj_out.weight')[0] ?? 0) / patch.reduce((product, side) => product * side, 1),
      text_dim: shapes.of('condition_embedder.text_embedder.linear_1.weight')[1],
      freq_dim: shapes.of('condition_embedder.time_embedder.linear_1.weight')[1],
      ffn_dim: shapes.of('blocks.0.ffn.net.0.proj.weight')[0],
      num_layers: layers,
      cross_attn_norm: shapes.has('blocks.0.norm2.weight'),
      ...(shapes.has('condition_embedder.image_embedder.norm1.weight') && {
        image_dim: shapes.of('condition_embedder.image_embedder.norm1.weight')[0],
        added_kv_proj_dim: shapes.of('blocks.0.attn2.add_k_proj.weight')[1],
      }),
      ...(shapes.has('condition_embedder.image_embedder.pos_embed') && {
        pos_embed_seq_len: shapes.of('condition_embedder.image_embedder.pos_embed')[1],
      }),
      add_ref_conv: shapes.has('ref_conv.weight'),
      ...(original.eps !== undefined && { eps: original.eps }),
    },
    files.path,
  );
}

/** The layers that VACE's blocks add hints to, evenly spread where the original's `config.json` does not name them. */
function vaceLayers(blocks: number, layers: number, original: OriginalConfig, shapes: WeightShapes): readonly number[] {
  const { vace_layers: listed } = original;
  if (listed !== undefined && listed.length !== blocks) {
    shapes.refuse(`has ${blocks} VACE blocks, the vace_layers of its config.json are ${listed.length}`);
  }
  if (listed === undefined && layers % blocks !== 0) {
    shapes.refuse(
      `has ${blocks} VACE blocks for ${layers} layers, which follow no known rule; put its config.json with vace_layers beside it`,
    );
  }
  return listed ?? Array.from({ length: blocks }, (_, i) => (i * layers) / blocks);
}

/** Means and deviations of the latents are the released ones: they do not follow from shapes. */
export function vaeConfigFromShapes(files: WeightFiles): VaeConfig {
  const shapes = new WeightShapes(files, 'a WAN');
  if (shapes.has('encoder.down_blocks.0.resnets.0.conv1.weight')) return residualVaeConfig(shapes, files.path);
  const [base = 0] = shapes.of('encoder.conv_in.weight');
  const layer = (i: number) => `encoder.down_blocks.${i}`;
  const isResnet = (i: number) => shapes.has(`${layer(i)}.conv1.weight`);
  const isEnd = (i: number) => shapes.has(`${layer(i)}.resample.1.weight`);
  const widths: number[] = [];
  const halvesTime: boolean[] = [];
  let blocks = 0;
  for (let i = 0; isResnet(i) || isEnd(i); i += 1) {
    if (isResnet(i)) widths[halvesTime.length] = shapes.of(`${layer(i)}.conv1.weight`)[0] ?? 0;
    else halvesTime.push(shapes.has(`${layer(i)}.time_conv.weight`));
    if (isResnet(i) && halvesTime.length === 0) blocks += 1;
  }
  const last = Math.max(0, widths.length - 1);
  return parseVaeConfig(
    {
      base_dim: base,
      decoder_base_dim:
        (shapes.of(`decoder.up_blocks.${last}.resnets.0.conv1.weight`)[0] ?? 0) / ratio(widths[0], base),
      z_dim: shapes.of('post_quant_conv.weight')[0],
      dim_mult: widths.map((width) => ratio(width, base)),
      num_res_blocks: blocks,
      temperal_downsample: halvesTime,
    },
    files.path,
  );
}

/** The VAE of WAN 2.2. */
function residualVaeConfig(shapes: WeightShapes, path: string): VaeConfig {
  const [base = 0, colours = 0] = shapes.of('encoder.conv_in.weight');
  const down = (i: number) => `encoder.down_blocks.${i}`;
  const blocks = shapes.range((i) => `${down(i)}.resnets.0.conv1.weight`);
  const widths = blocks.map((i) => shapes.of(`${down(i)}.resnets.0.conv1.weight`)[0] ?? 0);
  const last = `decoder.up_blocks.${widths.length - 1}.resnets.0.conv1.weight`;
  const latents = shapes.of('post_quant_conv.weight')[0];
  return parseVaeConfig(
    {
      is_residual: true,
      patch_size: Math.sqrt(colours / COLOURS),
      in_channels: colours,
      out_channels: colours,
      base_dim: base,
      decoder_base_dim: (shapes.of(last)[0] ?? 0) / ratio(widths[0], base),
      z_dim: latents,
      dim_mult: widths.map((width) => ratio(width, base)),
      num_res_blocks: shapes.range((j) => `${down(0)}.resnets.${j}.conv1.weight`).length,
      temperal_downsample: blocks.slice(0, -1).map((i) => shapes.has(`${down(i)}.downsampler.time_conv.weight`)),
      latents_mean: LATENTS_MEAN_2_2,
      latents_std: LATENTS_STD_2_2,
    },
    path,
  );
}

export function textEncoderConfigFromShapes(files: WeightFiles): TextEncoderConfig {
  const shapes = new WeightShapes(files, 'a UMT5 encoder');
  const attention = (i: number) => `encoder.block.${i}.layer.0.SelfAttention`;
  const [vocabulary, width] = shapes.of('shared.weight');
  const [buckets, heads = 0] = shapes.of(`${attention(0)}.relative_attention_bias.weight`);
  return parseTextEncoderConfig(
    {
      vocab_size: vocabulary,
      d_model: width,
      d_kv: (shapes.of(`${attention(0)}.q.weight`)[0] ?? 0) / heads,
      d_ff: shapes.of('encoder.block.0.layer.1.DenseReluDense.wi_0.weight')[0],
      num_layers: shapes.range((i) => `${attention(i)}.q.weight`).length,
      num_heads: heads,
      relative_attention_num_buckets: buckets,
    },
    files.path,
  );
}

function ratio(width: number | undefined, base: number): number {
  return (width ?? 0) / base;
}
