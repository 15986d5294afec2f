import { dirname, join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../../../errors.js';
import { readJsonFile } from '../../../std/json-file.js';
import { renamed, third, type WeightFiles, type WeightRecord } from '../../../weights/weight-files.js';
import { WeightShapes } from '../../../weights/weight-shapes.js';
import { configFile } from '../../common/component-config.js';
import { readControlNetHeader } from '../../controlnets/controlnet-header.js';
import type { SdxlConfig } from '../model/config.js';
import type { ControlNetConfig } from '../model/controlnet.js';
import { vaeScale } from '../model/vae.js';
import { translateUNet } from './original-layout.js';

/** A ControlNet that was found and understood, but not loaded. Its tensors have diffusers' names. */
export interface ControlNetCheckpoint {
  readonly files: WeightFiles;
  readonly config: ControlNetConfig;
  /** It was trained on images whose blue comes first. */
  readonly isBgr: boolean;
}

/** Beside the weights in a diffusers folder. */
const fileSchema = z.object({ controlnet_conditioning_channel_order: z.enum(['rgb', 'bgr']).default('rgb') });

/**
 * Reads the header of a ControlNet for an SDXL.
 * @throws InferenceError MODEL_UNSUPPORTED or CHECKPOINT_INVALID: the file is none, or does not fit the model
 */
export async function openControlNet(path: string, base: SdxlConfig): Promise<ControlNetCheckpoint> {
  const { files: read, layout, base: madeFor } = await readControlNetHeader(path);
  if (madeFor !== 'SDXL')
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} is a ControlNet for ${madeFor}; this model is SDXL`);
  const ours = layout === 'diffusers' ? read.tensors : translateControlNet(read.tensors);
  const files = { ...read, tensors: translateFuser(ours) };
  return { files, config: configFromShapes(files, base), isBgr: await isBgr(path) };
}

async function isBgr(path: string): Promise<boolean> {
  const beside = join(dirname(path), 'config.json');
  try {
    const options = { ...configFile('ControlNet'), fallback: {} };
    return (await readJsonFile(beside, fileSchema, options)).controlnet_conditioning_channel_order === 'bgr';
  } catch (error) {
    if (!(error instanceof InferenceError)) throw error;
    // Callers know the name of the weights' file.
    throw new InferenceError(error.reason, error.message.replaceAll(beside, `config.json beside ${path}`), {
      cause: error,
    });
  }
}

/** `zero_convs.0.0.weight`, `input_hint_block.2.bias`, … -> `controlnet_down_blocks.0.weight`, `controlnet_cond_embedding.blocks.0.bias`, …. */
export function translateControlNet(tensors: WeightFiles['tensors']): WeightFiles['tensors'] {
  // Every other layer is a SiLU.
  const hints = [...tensors.keys()].flatMap((key) => /^input_hint_block\.(\d+)\.weight$/.exec(key)?.[1] ?? []);
  const last = Math.max(0, ...hints.map(Number));
  return renamed(translateUNet(tensors), (key) =>
    key
      .replace(/^zero_convs\.(\d+)\.0\./, 'controlnet_down_blocks.$1.')
      .replace(/^middle_block_out\.0\./, 'controlnet_mid_block.')
      .replace(/^input_hint_block\.(\d+)\./, (_, i) => `controlnet_cond_embedding.${hintPlace(Number(i), last)}.`),
  );
}

/** The attention of a union model over its controls, which has OpenAI's names, to those of CLIP's layers. */
function translateFuser(tensors: WeightFiles['tensors']): WeightFiles['tensors'] {
  const translated = new Map<string, WeightRecord>();
  for (const [key, record] of tensors) {
    const [, layer, rest = ''] = /^transformer_layes\.(\d+)\.(.*)$/.exec(key) ?? [];
    const fused = /^attn\.in_proj_(weight|bias)$/.exec(rest);
    if (layer === undefined) translated.set(key, record);
    else if (fused === null) translated.set(`transformer_layes.${layer}.${fuserName(rest)}`, record);
    else
      for (const [part, name] of ['q_proj', 'k_proj', 'v_proj'].entries())
        translated.set(`transformer_layes.${layer}.self_attn.${name}.${fused[1]}`, third(record, part));
  }
  return translated;
}

function fuserName(rest: string): string {
  return rest
    .replace(/^ln_(\d)\./, 'layer_norm$1.')
    .replace(/^attn\./, 'self_attn.')
    .replace(/^mlp\.c_fc\./, 'mlp.fc1.')
    .replace(/^mlp\.c_proj\./, 'mlp.fc2.');
}

function hintPlace(i: number, last: number): string {
  if (i === 0) return 'conv_in';
  return i === last ? 'conv_out' : `blocks.${i / 2 - 1}`;
}

/** Widths, layers and heads are the UNet's; attention and the control's embedding are its own. */
function configFromShapes(files: WeightFiles, { unet, vae }: SdxlConfig): ControlNetConfig {
  const shapes = new WeightShapes(files, "a ControlNet of the model's UNet");
  const blocks = unet.block_out_channels.map((_, i) => i);
  const depthOf = (attention: string) =>
    shapes.range((k) => `${attention}.transformer_blocks.${k}.norm1.weight`).length;
  const depth = blocks.map((i) => depthOf(`down_blocks.${i}.attentions.0`));
  const steps = shapes.range((i) => `controlnet_cond_embedding.blocks.${i}.weight`).length / 2;
  const scale = vaeScale(vae);
  if (2 ** steps !== scale) shapes.refuse(`shrinks its control ${2 ** steps} times, the model's VAE ${scale} times`);
  const hintChannels = [
    shapes.of('controlnet_cond_embedding.conv_in.weight')[0] ?? 0,
    ...Array.from(
      { length: steps },
      (_, i) => shapes.of(`controlnet_cond_embedding.blocks.${2 * i + 1}.weight`)[0] ?? 0,
    ),
  ];
  return {
    unet: {
      ...unet,
      // Of an inpainting model it takes the latents alone.
      in_channels: vae.latent_channels,
      depth,
      down_block_types: depth.map((blocks) => (blocks > 0 ? 'CrossAttnDownBlock2D' : 'DownBlock2D')),
    },
    middleDepth: depthOf('mid_block.attentions.0'),
    hintChannels,
    union: unionOf(shapes),
  };
}

function unionOf(shapes: WeightShapes): ControlNetConfig['union'] {
  if (!shapes.has('task_embedding')) return undefined;
  const layers = shapes.range((i) => `transformer_layes.${i}.layer_norm1.weight`).length;
  return { modes: shapes.of('task_embedding')[0] ?? 0, layers };
}
