/** Configurations read off the tensors' shapes, for files that come without `config.json`: names as diffusers has them. */
import type { WeightFiles } from '../../../weights/weight-files.js';
import { WeightShapes } from '../../../weights/weight-shapes.js';
import {
  parseTextEncoderConfig,
  parseUNetConfig,
  parseVaeConfig,
  type TextEncoderConfig,
  type UNetConfig,
  type VaeConfig,
} from '../model/config.js';
import { refuseDistilled } from './read-config.js';

/** Heads of every published SDXL and of both its text encoders. */
const HEAD_WIDTH = 64;
/** The released model's values, which do not follow from shapes: https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/vae/config.json */
const SDXL_VAE_SCALING_FACTOR = 0.13025;

/** @param pooledWidth of the second text encoder: the rest of the added embedding's input are the six sizes */
export function unetConfigFromShapes(files: WeightFiles, pooledWidth: number): UNetConfig {
  const shapes = new WeightShapes(files, 'an SDXL');
  const blocks = shapes.range((i) => `down_blocks.${i}.resnets.0.conv1.weight`);
  const channels = blocks.map((i) => shapes.of(`down_blocks.${i}.resnets.0.conv1.weight`)[0]);
  const attends = (side: string, i: number) => shapes.has(`${side}_blocks.${i}.attentions.0.norm.weight`);
  const transformers = (i: number) =>
    shapes.range((k) => `down_blocks.${i}.attentions.0.transformer_blocks.${k}.norm1.weight`);
  const added = shapes.of('add_embedding.linear_1.weight')[1];
  if (!shapes.has('mid_block.attentions.0.norm.weight')) refuseDistilled(files.path);
  const first = blocks.find((i) => attends('down', i));
  if (first === undefined) return shapes.refuse('has a UNet without attention');
  const odd = blocks.find((i) => attends('down', i) && (channels[i] ?? 0) % HEAD_WIDTH !== 0);
  if (odd !== undefined)
    shapes.refuse(
      `has ${channels[odd]} channels in block ${odd} of its UNet, not a multiple of ${HEAD_WIDTH}, the width of a head`,
    );
  return parseUNetConfig(
    {
      in_channels: shapes.of('conv_in.weight')[1],
      out_channels: shapes.of('conv_out.weight')[0],
      block_out_channels: channels,
      layers_per_block: blocks.map((i) => shapes.range((j) => `down_blocks.${i}.resnets.${j}.conv1.weight`).length),
      down_block_types: blocks.map((i) => (attends('down', i) ? 'CrossAttnDownBlock2D' : 'DownBlock2D')),
      up_block_types: blocks.map((i) => (attends('up', i) ? 'CrossAttnUpBlock2D' : 'UpBlock2D')),
      transformer_layers_per_block: blocks.map((i) => transformers(i).length),
      attention_head_dim: channels.map((width = 0) => Math.max(1, Math.floor(width / HEAD_WIDTH))),
      cross_attention_dim: shapes.of(`down_blocks.${first}.attentions.0.transformer_blocks.0.attn2.to_k.weight`)[1],
      use_linear_projection: shapes.of(`down_blocks.${first}.attentions.0.proj_in.weight`).length === 2,
      addition_embed_type: 'text_time',
      addition_time_embed_dim: ((added ?? 0) - pooledWidth) / 6,
      projection_class_embeddings_input_dim: added,
    },
    files.path,
  );
}

export function vaeConfigFromShapes(files: WeightFiles): VaeConfig {
  const shapes = new WeightShapes(files, 'an SDXL');
  const blocks = shapes.range((i) => `encoder.down_blocks.${i}.resnets.0.conv1.weight`);
  return parseVaeConfig(
    {
      in_channels: shapes.of('encoder.conv_in.weight')[1],
      out_channels: shapes.of('decoder.conv_out.weight')[0],
      latent_channels: shapes.of('decoder.conv_in.weight')[1],
      block_out_channels: blocks.map((i) => shapes.of(`encoder.down_blocks.${i}.resnets.0.conv1.weight`)[0]),
      layers_per_block: shapes.range((j) => `encoder.down_blocks.0.resnets.${j}.conv1.weight`).length,
      scaling_factor: SDXL_VAE_SCALING_FACTOR,
      use_post_quant_conv: shapes.has('post_quant_conv.weight'),
      use_quant_conv: shapes.has('quant_conv.weight'),
      mid_block_add_attention: shapes.has('decoder.mid_block.attentions.0.to_q.weight'),
    },
    files.path,
  );
}

/** @param second the tower with a projection: OpenCLIP's, with the exact GELU */
export function textEncoderConfigFromShapes(files: WeightFiles, second: boolean): TextEncoderConfig {
  const shapes = new WeightShapes(files, 'an SDXL');
  const [vocabulary, width = 0] = shapes.of('text_model.embeddings.token_embedding.weight');
  if (width % HEAD_WIDTH !== 0)
    shapes.refuse(`has a text encoder ${width} wide, not a multiple of ${HEAD_WIDTH}, the width of a head`);
  return parseTextEncoderConfig(
    {
      vocab_size: vocabulary,
      hidden_size: width,
      intermediate_size: shapes.of('text_model.encoder.layers.0.mlp.fc1.weight')[0],
      num_hidden_layers: shapes.range((i) => `text_model.encoder.layers.${i}.layer_norm1.weight`).length,
      num_attention_heads: width / HEAD_WIDTH,
      max_position_embeddings: shapes.of('text_model.embeddings.position_embedding.weight')[0],
      hidden_act: second ? 'gelu' : 'quick_gelu',
      ...(second && { projection_dim: shapes.of('text_projection.weight')[0] }),
      // The end token is the one with the largest id, as in the original code.
      eos_token_id: 2,
    },
    files.path,
  );
}
