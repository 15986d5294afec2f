import { dirname, join } from 'node:path';
import { InferenceError } from '../../../errors.js';
import { readWeightFile } from '../../../weights/weight-file.js';
import { readWeightFiles, type WeightFiles } from '../../../weights/weight-files.js';
import { type ImageEncoderConfig, withoutTower } from '../../common/image-encoder-config.js';
import { flagOf } from '../../family.js';
import { isLoraFile } from '../../lora/lora-keys.js';
import type { WanConfig } from '../model/config.js';
import { assertVariant, SERVED, variantOf } from '../model/variant.js';
import { wanOptions } from '../variables.js';
import {
  beside,
  type ComponentName,
  exists,
  isFolder,
  type Part,
  readImageEncoder,
  readTextEncoder,
  readVae,
  STEMS,
} from './checkpoint-parts.js';
import { transformerConfigFromShapes } from './config-from-shapes.js';
import { translateTransformer, withoutPrefix } from './original-layout.js';
import { readOriginalConfig, readWanConfig } from './read-config.js';

/** The source of a model: the checkpoint, and parts or settings that the operator gives in place of the checkpoint's. */
export interface WanSource {
  /** A diffusers-layout folder, a folder as the original code has it, or the transformer's `.safetensors` or `.gguf` file alone. */
  readonly path: string;
  /** A VAE of its own, file or diffusers folder. Omitted: the checkpoint's, or the one beside it. */
  readonly vae?: string | undefined;
  /** UMT5-XXL's encoder of its own, file or folder. Omitted: the checkpoint's, or the one beside it. */
  readonly textEncoder?: string | undefined;
  /** CLIP's image encoder of its own, file or folder. Omitted: the checkpoint's, or the one beside it. */
  readonly imageEncoder?: string | undefined;
  /** A folder with UMT5's tokenizer.json or spiece.model. Omitted: the checkpoint's. */
  readonly tokenizer?: string | undefined;
  /** True: the text encoder stays loaded between jobs. Omitted: it is loaded for the prompts of a job and released after them. */
  readonly keepsTextEncoder?: boolean | undefined;
  /** Folder for weights that are converted before they are used. Omitted: see `readGgufWeights`. */
  readonly weightsCache?: string | undefined;
}

/** A checkpoint that was found and understood, but not loaded. Its tensors have diffusers' names, whatever the layout. */
export interface WanCheckpoint {
  readonly path: string;
  readonly layout: 'diffusers' | 'original';
  readonly config: WanConfig;
  /** The folder of the tokenizer's files; nothing has looked into it. */
  readonly tokenizer: string;
  /** Headers only. @throws InferenceError CHECKPOINT_INVALID */
  readWeights(name: ComponentName): Promise<WeightFiles>;
}

/** The original code's own: https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/generate.py#L69 */
const ORIGINAL_SCHEDULER = { num_train_timesteps: 1000, flow_shift: 5 } as const;

/** @throws InferenceError CHECKPOINT_INVALID or MODEL_UNSUPPORTED: what is wrong with the file or folder, in one sentence */
export async function openWanCheckpoint(source: WanSource): Promise<WanCheckpoint> {
  const { path, weightsCache: cacheFolder } = source;
  if (!(await exists(path))) throw new InferenceError('CHECKPOINT_INVALID', `${path} does not exist`);
  const vae = source.vae === undefined ? undefined : await readVae(source.vae, { cacheFolder });
  const text =
    source.textEncoder === undefined ? undefined : await readTextEncoder(source.textEncoder, { cacheFolder });
  const image =
    source.imageEncoder === undefined ? undefined : await readImageEncoder(source.imageEncoder, { cacheFolder });
  if (!(await isFolder(path)) || !(await exists(join(path, 'model_index.json')))) {
    return openOriginal(source, { vae, text, image });
  }
  const config = await readWanConfig(path);
  const parts = {
    vae: vae?.config ?? config.vae,
    textEncoder: text?.config ?? config.textEncoder,
    imageEncoder: config.imageEncoder && (image?.config ?? config.imageEncoder),
  };
  assertVae(config.transformer, parts.vae, path);
  assertImageEncoder(config.transformer, parts.imageEncoder, path);
  return {
    path,
    layout: 'diffusers',
    config: { ...config, ...parts },
    tokenizer: source.tokenizer ?? join(path, 'tokenizer'),
    readWeights: async (name) => {
      const given = { transformer: undefined, vae: vae?.files, text_encoder: text?.files, image_encoder: image?.files };
      const found = given[name] ?? (await readWeightFiles(join(path, name), STEMS[name]));
      return name === 'image_encoder' ? withoutTower(found) : found;
    },
  };
}

interface GivenParts {
  readonly vae: Part<WanConfig['vae']> | undefined;
  readonly text: Part<WanConfig['textEncoder']> | undefined;
  readonly image: Part<ImageEncoderConfig> | undefined;
}

/** @throws InferenceError CHECKPOINT_INVALID for a folder in diffusers' layout that has lost its index */
async function assertNotDiffusers(path: string): Promise<void> {
  if (!(await isFolder(join(path, 'transformer')))) return;
  throw new InferenceError(
    'CHECKPOINT_INVALID',
    `${path} has no diffusion_pytorch_model.safetensors and no index of shards, but a folder transformer: in diffusers' layout its model_index.json is missing; download the checkpoint again`,
  );
}

async function openOriginal(
  { path, tokenizer, weightsCache: cacheFolder }: WanSource,
  { vae, text, image }: GivenParts,
): Promise<WanCheckpoint> {
  const options = { cacheFolder };
  const folder = (await isFolder(path)) ? path : dirname(path);
  if (folder === path) await assertNotDiffusers(path);
  const found = folder === path ? await readWeightFiles(path, STEMS.transformer) : await readWeightFile(path, options);
  const bare = withoutPrefix(found.tensors);
  assertWan(found.path, bare);
  const isOurs = bare.has('condition_embedder.time_proj.weight');
  const transformer = { ...found, tensors: isOurs ? bare : translateTransformer(bare) };
  const config = transformerConfigFromShapes(transformer, await readOriginalConfig(folder));
  assertVariant(config, found.path);
  const vaeName = variantOf(config) === 'text_image_to_video' ? 'vae_2_2' : 'vae';
  const autoencoder = vae ?? (await readVae(await beside(folder, vaeName, wanOptions.WAN_VAE), options));
  assertVae(config, autoencoder.config, path);
  const encoder =
    text ?? (await readTextEncoder(await beside(folder, 'text_encoder', wanOptions.WAN_TEXT_ENCODER), options));
  const looks = config.image_dim != null;
  const eye = looks
    ? (image ?? (await readImageEncoder(await beside(folder, 'image_encoder', wanOptions.WAN_IMAGE_ENCODER), options)))
    : undefined;
  assertImageEncoder(config, eye?.config, path);
  return {
    path,
    layout: 'original',
    config: {
      transformer: config,
      vae: autoencoder.config,
      textEncoder: encoder.config,
      imageEncoder: eye?.config,
      scheduler: ORIGINAL_SCHEDULER,
    },
    tokenizer: tokenizer ?? join(folder, 'google', 'umt5-xxl'),
    readWeights: async (name) => {
      const parts = { transformer, vae: autoencoder.files, text_encoder: encoder.files, image_encoder: eye?.files };
      const files = parts[name];
      if (files === undefined) throw new Error(`${path} has no ${name}`);
      return files;
    },
  };
}

/** Variants by the prefix of the tensors that they alone have. */
const OTHER_VARIANTS = [
  ['motion_encoder.', 'WAN Animate'],
  ['control_adapter.', 'Fun-Control-Camera'],
] as const;

/** @throws InferenceError MODEL_UNSUPPORTED that names what the file is instead, where its names show it */
function assertWan(path: string, tensors: WeightFiles['tensors']): void {
  const refuse = (problem: string): never => {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} ${problem}`);
  };
  const keys = [...tensors.keys()];
  const has = (prefix: string) => keys.some((key) => key.startsWith(prefix));
  if (isLoraFile(keys)) refuse('is a LoRA, not a checkpoint');
  const [, other] = OTHER_VARIANTS.find(([prefix]) => has(prefix)) ?? [];
  if (other !== undefined) refuse(`is a ${other} model; ${SERVED}`);
  if (has('decoder.') && !has('blocks.'))
    refuse(`is a VAE; give the transformer, and the VAE with ${flagOf(wanOptions.WAN_VAE)}`);
  if (!has('patch_embedding.') || !has('blocks.'))
    refuse('has no patch_embedding.* and blocks.* tensors: it is not a WAN transformer');
}

/** @throws InferenceError CHECKPOINT_INVALID where the VAE's latents are not those that the transformer denoises */
function assertVae(
  { in_channels, out_channels }: WanConfig['transformer'],
  { z_dim: channels }: WanConfig['vae'],
  path: string,
): void {
  const wanted = out_channels ?? in_channels;
  if (channels === wanted) return;
  const problem = `the VAE has ${channels} latent channels, the transformer ${wanted}; they belong to different models`;
  throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${problem}`);
}

/** @throws InferenceError CHECKPOINT_INVALID where the image encoder's states are not those that the transformer takes */
function assertImageEncoder(
  { image_dim: width, pos_embed_seq_len: positions }: WanConfig['transformer'],
  encoder: ImageEncoderConfig | undefined,
  path: string,
): void {
  if (encoder === undefined) return;
  const refuse = (problem: string): never => {
    throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${problem}; they belong to different models`);
  };
  const tokens = 1 + (encoder.image_size / encoder.patch_size) ** 2;
  if (encoder.hidden_size !== width) {
    refuse(`the image encoder is ${encoder.hidden_size} wide, the transformer takes images ${width} wide`);
  }
  if (positions != null && positions !== 2 * tokens) {
    refuse(`the image encoder makes ${tokens} tokens of an image, the transformer takes ${positions} of two`);
  }
}
