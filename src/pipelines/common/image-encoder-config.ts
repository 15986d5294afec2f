import { join } from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../../errors.js';
import { readJsonFile } from '../../std/json-file.js';
import { below, type WeightFiles } from '../../weights/weight-files.js';
import { WeightShapes } from '../../weights/weight-shapes.js';
import { configFile, layerCount, parseComponentConfig } from './component-config.js';

/** `image_encoder/config.json`. Defaults are those of the released one, OpenCLIP's ViT-H/14: transformers has a smaller model's. */
const imageEncoderSchema = z.object({
  hidden_size: z.int().min(1).default(1280),
  intermediate_size: z.int().min(1).default(5120),
  num_hidden_layers: layerCount(2).default(32),
  num_attention_heads: z.int().min(1).default(16),
  image_size: z.int().min(1).default(224),
  patch_size: z.int().min(1).default(14),
  hidden_act: z.enum(['gelu', 'quick_gelu']).default('gelu'),
  layer_norm_eps: z.number().positive().default(1e-5),
  // Width of the embedding of a whole image.
  projection_dim: z.int().min(1).default(1024),
});

/** `image_processor/preprocessor_config.json`, as far as it may differ from CLIP's own. */
const imageProcessorSchema = z.object({
  image_mean: z.array(z.number()).length(3).default([0.48145466, 0.4578275, 0.40821073]),
  image_std: z.array(z.number().positive()).length(3).default([0.26862954, 0.26130258, 0.27577711]),
  do_resize: z.literal(true).default(true),
  do_center_crop: z.literal(true).default(true),
  do_normalize: z.literal(true).default(true),
  // Bicubic.
  resample: z.literal(3).default(3),
  size: z.object({ shortest_edge: z.int() }).optional(),
  crop_size: z.object({ height: z.int(), width: z.int() }).optional(),
});

/** Configuration of CLIP's image tower, and of the images that it takes. */
export type ImageEncoderConfig = z.infer<typeof imageEncoderSchema> &
  Pick<z.infer<typeof imageProcessorSchema>, 'image_mean' | 'image_std'>;

/** @param folder with `config.json`; `image_processor` beside it configures how images are prepared, otherwise CLIP's defaults apply */
export async function readImageEncoderConfig(folder: string, model: string): Promise<ImageEncoderConfig> {
  const file = configFile(model);
  const path = join(folder, '..', 'image_processor', 'preprocessor_config.json');
  const processor = await readJsonFile(path, imageProcessorSchema, { ...file, fallback: {} });
  const encoder = await readJsonFile(join(folder, 'config.json'), imageEncoderSchema, file);
  const { image_mean, image_std, size, crop_size: crop } = processor;
  const other = [size?.shortest_edge, crop?.height, crop?.width].find(
    (side) => (side ?? encoder.image_size) !== encoder.image_size,
  );
  if (other !== undefined) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${path} makes images ${other} pixels high or wide, the image encoder takes ${encoder.image_size}`,
    );
  }
  return { ...encoder, image_mean, image_std };
}

/**
 * The same from the tower's tensors. The number of heads is the released ones': it does not follow from shapes.
 * @param values what does not follow from the tower. Omitted: the defaults
 */
export function imageEncoderConfigFromShapes(
  files: WeightFiles,
  values: Partial<Pick<ImageEncoderConfig, 'projection_dim'>> = {},
): ImageEncoderConfig {
  const shapes = new WeightShapes(files, "CLIP's image encoder");
  const layer = (i: number) => `encoder.layers.${i}`;
  const [width, , patch = 0] = shapes.of('embeddings.patch_embedding.weight');
  const [tokens = 0] = shapes.of('embeddings.position_embedding.weight');
  const names = { model: "an image encoder's", path: files.path };
  const { image_mean, image_std } = parseComponentConfig(imageProcessorSchema, {}, names);
  const found = {
    ...values,
    hidden_size: width,
    intermediate_size: shapes.of(`${layer(0)}.mlp.fc1.weight`)[0],
    num_hidden_layers: shapes.range((i) => `${layer(i)}.layer_norm1.weight`).length,
    // A token for each patch of a square, and one for all of it.
    image_size: patch * Math.sqrt(tokens - 1),
    patch_size: patch,
  };
  return { ...parseComponentConfig(imageEncoderSchema, found, names), image_mean, image_std };
}

/** Names as transformers saves the tower alone: those of a whole CLIP, or of one with a projection, have a prefix. */
export function withoutTower(files: WeightFiles): WeightFiles {
  const own = below(files.tensors, 'vision_model.');
  return own.size > 0 ? { ...files, tensors: own } : files;
}
