import { stat } from 'node:fs/promises';
import { InferenceError } from '../../../errors.js';
import { readSafetensors } from '../../../weights/safetensors.js';
import { below, readWeightFiles, type WeightFiles, type WeightRecord } from '../../../weights/weight-files.js';
import { WeightShapes } from '../../../weights/weight-shapes.js';
import {
  type ImageEncoderConfig,
  imageEncoderConfigFromShapes,
  readImageEncoderConfig,
  withoutTower,
} from '../../common/image-encoder-config.js';
import type { ImageProjectionConfig, ImagePromptConfig, UNetConfig } from '../model/config.js';
import { crossAttentions, HEAD_CHANNELS, IMAGE_KEYS } from '../model/ip-adapter.js';

/** Tokens that a base adapter makes of an image; the shapes give only their product with the width. */
const BASE_TOKENS = 4;

/** Widths of the texts of other models, whose adapters are in the same layout. */
const OTHER_MODELS: ReadonlyMap<number, string> = new Map([
  [768, 'Stable Diffusion 1'],
  [1024, 'Stable Diffusion 2'],
]);

/** An IP-Adapter and its image encoder, found and understood, but not loaded. */
export interface ImagePromptCheckpoint {
  readonly config: ImagePromptConfig;
  readonly files: Readonly<Record<'image_encoder' | 'image_projection', WeightFiles>>;
  /** The matrices that the UNet's cross attentions get, under the UNet's names for them. */
  readonly attention: WeightFiles['tensors'];
}

/**
 * Reads the headers of an IP-Adapter for an SDXL and of an image encoder.
 * @param paths `adapter`: a .safetensors file in the published layout; `encoder`: a file, or a folder as transformers saves it
 * @throws InferenceError MODEL_UNSUPPORTED or CHECKPOINT_INVALID: what does not fit, in one sentence
 */
export async function openImagePrompt(
  paths: { readonly adapter: string; readonly encoder: string },
  unet: UNetConfig,
): Promise<ImagePromptCheckpoint> {
  const { tensors, metadata } = await readSafetensors(paths.adapter);
  const whole: WeightFiles = { path: paths.adapter, tensors, metadata };
  assertKind(whole);
  const attention = attentionOf(whole, unet);
  const projectionFiles = { ...whole, tensors: below(tensors, 'image_proj.') };
  const encoder = await readEncoder(paths.encoder);
  const { projection, wanted } = projectionFromShapes(projectionFiles, unet);
  const has = projection.kind === 'base' ? encoder.config.projection_dim : encoder.config.hidden_size;
  if (has !== wanted) {
    const what = projection.kind === 'base' ? 'image embeddings' : 'image states';
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${paths.encoder} makes ${what} ${has} wide, the IP-Adapter ${paths.adapter} takes ${wanted}; give the image encoder that it was trained with`,
    );
  }
  return {
    config: { encoder: encoder.config, projection },
    files: { image_encoder: encoder.files, image_projection: projectionFiles },
    attention,
  };
}

/** @throws InferenceError MODEL_UNSUPPORTED for other files, and for adapters of other kinds */
function assertKind({ path, tensors }: WeightFiles): void {
  const refuse = (problem: string): never => {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} ${problem}`);
  };
  const has = (prefix: string) => [...tensors.keys()].some((key) => key.startsWith(prefix));
  const missing = ['image_proj.', 'ip_adapter.'].find((prefix) => !has(prefix));
  if (missing !== undefined) refuse(`is no IP-Adapter: it has no ${missing}* tensors`);
  const isFace = has('image_proj.perceiver_resampler.') || (has('image_proj.norm.') && has('image_proj.proj.0.'));
  const kind = isFace ? 'FaceID' : has('image_proj.proj.3.') ? 'Full Face' : undefined;
  if (kind !== undefined) refuse(`is an IP-Adapter of the kind ${kind}; darkroom serves base and plus`);
}

/** @throws InferenceError for an adapter of another UNet */
function attentionOf({ path, tensors }: WeightFiles, unet: UNetConfig): WeightFiles['tensors'] {
  const own = below(tensors, 'ip_adapter.');
  const width = unet.cross_attention_dim;
  const [first] = own.values();
  const theirs = first?.shape[1];
  if (theirs !== width) {
    const other = OTHER_MODELS.get(theirs ?? 0);
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is an IP-Adapter for ${other ?? 'another model'}: its image tokens are ${theirs} wide, the UNet of this SDXL takes ${width}`,
    );
  }
  const wanted = crossAttentions(unet);
  const count = own.size / 2;
  if (count !== wanted.length) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is an IP-Adapter for ${count} cross attentions, the UNet of this SDXL has ${wanted.length}`,
    );
  }
  const named = new Map<string, WeightRecord>();
  for (const { path: attention, channels, number } of wanted) {
    for (const part of ['k', 'v'] as const) {
      const key = `${number}.to_${part}_ip.weight`;
      const record = own.get(key);
      const [rows, columns] = record?.shape ?? [];
      if (record === undefined || rows !== channels || columns !== width) {
        const found = record === undefined ? 'has no' : `has a shape of [${record.shape}] for`;
        throw new InferenceError(
          'CHECKPOINT_INVALID',
          `${path} ${found} ip_adapter.${key}, the UNet of this SDXL needs [${channels},${width}]`,
        );
      }
      named.set(`${attention}.${IMAGE_KEYS[part]}.weight`, record);
    }
  }
  return named;
}

/** `wanted`: width of what the image encoder must make. */
function projectionFromShapes(
  files: WeightFiles,
  { cross_attention_dim: width }: UNetConfig,
): { readonly projection: ImageProjectionConfig; readonly wanted: number } {
  const shapes = new WeightShapes(files, 'an IP-Adapter');
  if (shapes.has('proj.weight')) {
    const [rows, wanted = 0] = shapes.of('proj.weight');
    if (rows !== BASE_TOKENS * width)
      shapes.refuse(`makes image tokens of ${rows} numbers together, must be ${BASE_TOKENS} tokens ${width} wide`);
    return { projection: { kind: 'base', tokens: BASE_TOKENS }, wanted };
  }
  const [, tokens = 0, inside = 0] = shapes.of('latents');
  const projection = {
    kind: 'plus',
    tokens,
    width: inside,
    layers: shapes.range((i) => `layers.${i}.0.to_q.weight`).length,
    heads: (shapes.of('layers.0.0.to_q.weight')[0] ?? 0) / HEAD_CHANNELS,
    inner: shapes.of('layers.0.1.1.weight')[0] ?? 0,
  } as const;
  if (!Number.isInteger(projection.heads) || projection.heads < 1)
    shapes.refuse(
      `has a projection whose heads are not ${HEAD_CHANNELS} channels wide, as those of published ones are`,
    );
  if (Math.min(tokens, inside, projection.inner) < 1) shapes.refuse('has a projection without tokens or channels');
  return { projection, wanted: shapes.of('proj_in.weight')[1] ?? 0 };
}

async function readEncoder(
  path: string,
): Promise<{ readonly files: WeightFiles; readonly config: ImageEncoderConfig }> {
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  const read: WeightFiles = isFolder
    ? await readWeightFiles(path, ['model'])
    : { path, ...(await readSafetensors(path)) };
  const projection = read.tensors.get('visual_projection.weight');
  if (projection === undefined || !read.tensors.has('vision_model.embeddings.class_embedding')) {
    const missing = projection === undefined ? 'visual_projection.weight' : 'vision_model.*';
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${read.path} has no ${missing}; an IP-Adapter needs CLIP's image encoder as transformers saves it (CLIPVisionModelWithProjection)`,
    );
  }
  const tower = withoutTower(read);
  const files = { ...tower, tensors: new Map([...tower.tensors, ['visual_projection.weight', projection] as const]) };
  const config = isFolder
    ? await readImageEncoderConfig(path, 'CLIP image encoder')
    : imageEncoderConfigFromShapes(files, { projection_dim: projection.shape[0] ?? 0 });
  const { hidden_size: width, num_attention_heads: heads } = config;
  if (width % heads !== 0)
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${read.path} is ${width} wide, which does not divide into ${heads} heads${isFolder ? '' : ', as published image encoders have; name the folder with its config.json'}`,
    );
  return { files, config };
}
