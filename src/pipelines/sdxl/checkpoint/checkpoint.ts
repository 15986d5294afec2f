import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InferenceError } from '../../../errors.js';
import { type ClipTokenizer, readClipTokenizer } from '../../../tokenizer/clip.js';
import { PUBLISHED_CLIP_TOKENS, readPublishedClip } from '../../../tokenizer/published-clip.js';
import { isGguf } from '../../../weights/gguf/gguf-types.js';
import { readGgufWeights } from '../../../weights/gguf/gguf-weights.js';
import { readSafetensors } from '../../../weights/safetensors.js';
import { below, readWeightFiles, renamed, type WeightFiles } from '../../../weights/weight-files.js';
import { WeightShapes } from '../../../weights/weight-shapes.js';
import { flagOf } from '../../family.js';
import { isLoraFile } from '../../lora/lora-keys.js';
import type { SdxlConfig, TextEncoderConfig, UNetConfig } from '../model/config.js';
import { type PredictionType, sdxlOptions } from '../variables.js';
import { textEncoderConfigFromShapes, unetConfigFromShapes, vaeConfigFromShapes } from './config-from-shapes.js';
import { type ImagePromptCheckpoint, openImagePrompt } from './ip-adapter.js';
import { translateOpenClip, translateUNet, translateVae } from './original-layout.js';
import { readSdxlConfig, readTextEncoderConfig, readUNetConfig, readVaeConfig } from './read-config.js';

/** The parts that a checkpoint is made of, as its folders are called. */
export const componentNames = ['text_encoder', 'text_encoder_2', 'unet', 'vae'] as const;
export type ComponentName = (typeof componentNames)[number];

/** What an IP-Adapter adds to a checkpoint. */
export const imagePromptNames = ['image_encoder', 'image_projection'] as const;
export type ImagePromptName = (typeof imagePromptNames)[number];

/** The source of a model: the checkpoint, and parts or settings that the operator gives in place of the checkpoint's. */
export interface SdxlSource {
  /** A diffusers-layout folder, or one `.safetensors` file in the original key layout. */
  readonly path: string;
  /** For a single file: a folder with vocab.json and merges.txt, or with `tokenizer/` and `tokenizer_2/`. Omitted: beside the file, else CLIP's published vocabulary. */
  readonly tokenizer?: string | undefined;
  /** A UNet of its own, file or diffusers folder, in place of the checkpoint's: of the same architecture. */
  readonly unet?: string | undefined;
  /** A VAE of its own, file or diffusers folder, in place of the checkpoint's. */
  readonly vae?: string | undefined;
  /** CLIP ViT-L of its own, file or folder. */
  readonly textEncoder?: string | undefined;
  /** OpenCLIP ViT-bigG of its own, file or folder. */
  readonly textEncoder2?: string | undefined;
  /** An IP-Adapter for the checkpoint's UNet: a `.safetensors` file. Omitted: none. */
  readonly ipAdapter?: string | undefined;
  /** The image encoder that the IP-Adapter was trained with, file or folder. Omitted: there is no IP-Adapter. */
  readonly ipAdapterEncoder?: string | undefined;
  /** Prediction type of the UNet, where the checkpoint does not name it or is wrong about it. */
  readonly predictionType?: PredictionType | undefined;
  /** Trained with zero terminal SNR: betas are rescaled and steps begin at the last timestep. */
  readonly zeroTerminalSnr?: boolean | undefined;
  /** Folder for weights that are converted before they are used. Omitted: see `readGgufWeights`. */
  readonly weightsCache?: string | undefined;
}

/** A checkpoint that was found and understood, but not loaded. Its tensors have diffusers' names, whatever the layout. */
export interface SdxlCheckpoint {
  readonly path: string;
  readonly layout: 'diffusers' | 'original';
  readonly config: SdxlConfig;
  /** Headers only. @throws InferenceError CHECKPOINT_INVALID */
  readWeights(name: ComponentName | ImagePromptName): Promise<WeightFiles>;
  readTokenizers(): Promise<readonly [ClipTokenizer, ClipTokenizer]>;
  /** Keys of a single file that belong to no part of the model. */
  readonly foreign: readonly string[];
}

/** Scheduler configuration of the released model. https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/scheduler/scheduler_config.json */
const SDXL_SCHEDULER = {
  _class_name: 'EulerDiscreteScheduler',
  beta_schedule: 'scaled_linear',
  beta_start: 0.00085,
  beta_end: 0.012,
  clip_sample: false,
  num_train_timesteps: 1000,
  set_alpha_to_one: false,
  steps_offset: 1,
  timestep_spacing: 'leading',
} as const;

const STEMS: Readonly<Record<ComponentName, readonly string[]>> = {
  text_encoder: ['model'],
  text_encoder_2: ['model'],
  unet: ['diffusion_pytorch_model'],
  vae: ['diffusion_pytorch_model'],
};

const PREFIXES: Readonly<Record<ComponentName, string>> = {
  text_encoder: 'conditioner.embedders.0.transformer.',
  text_encoder_2: 'conditioner.embedders.1.model.',
  unet: 'model.diffusion_model.',
  vae: 'first_stage_model.',
};

/**
 * Keys beside the weights that say how the model was trained: `edm_mean` and `edm_std` of Playground 2.5, `edm_vpred.sigma_max` and
 * `edm_vpred.sigma_min` of CosXL. ComfyUI samples by them (`SDXL.model_type`):
 * https://github.com/comfyanonymous/ComfyUI/blob/master/comfy/supported_models.py
 */
const EDM_MARKERS = /^edm[._]|(^|\.)sigma_(min|max|data)$/;

/** Prediction types of ModelSpec 1.0.0 that are sampled here. https://github.com/Stability-AI/ModelSpec */
const MODELSPEC_PREDICTIONS: ReadonlyMap<string, PredictionType> = new Map([
  ['epsilon', 'epsilon'],
  ['v', 'v_prediction'],
]);

/** Names of UNets that take more than the latents, by their input channels. */
const OTHER_UNETS: ReadonlyMap<number, string> = new Map([[8, ' (an InstructPix2Pix model)']]);

/** @throws InferenceError CHECKPOINT_INVALID or MODEL_UNSUPPORTED: what is wrong with the file or folder, in one sentence */
export async function openSdxlCheckpoint(source: SdxlSource): Promise<SdxlCheckpoint> {
  const bare = await openWithoutImages(source);
  const { ipAdapter, ipAdapterEncoder } = source;
  const withImages = (imagePrompt?: ImagePromptCheckpoint): SdxlCheckpoint => ({
    ...bare,
    config: { ...bare.config, ...(imagePrompt && { imagePrompt: imagePrompt.config }) },
    async readWeights(name) {
      if (name === 'image_encoder' || name === 'image_projection') {
        if (imagePrompt === undefined) throw new Error(`a checkpoint without an IP-Adapter has no ${name}`);
        return imagePrompt.files[name];
      }
      const own = await bare.readWeights(name);
      if (name !== 'unet' || imagePrompt === undefined) return own;
      return { ...own, tensors: new Map([...own.tensors, ...imagePrompt.attention]) };
    },
  });
  if (ipAdapter === undefined && ipAdapterEncoder === undefined) return withImages();
  if (ipAdapter === undefined || ipAdapterEncoder === undefined) {
    const [given, missing] =
      ipAdapter === undefined
        ? [sdxlOptions.SDXL_IP_ADAPTER_ENCODER, sdxlOptions.SDXL_IP_ADAPTER]
        : [sdxlOptions.SDXL_IP_ADAPTER, sdxlOptions.SDXL_IP_ADAPTER_ENCODER];
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${flagOf(given)} ${ipAdapter ?? ipAdapterEncoder} needs ${flagOf(missing)} PATH: an IP-Adapter and its image encoder are used together`,
    );
  }
  const paths = { adapter: ipAdapter, encoder: ipAdapterEncoder };
  return withImages(await openImagePrompt(paths, bare.config.unet));
}

/** Without what an IP-Adapter adds. */
interface BareCheckpoint extends Omit<SdxlCheckpoint, 'readWeights'> {
  readWeights(name: ComponentName): Promise<WeightFiles>;
}

async function openWithoutImages(source: SdxlSource): Promise<BareCheckpoint> {
  const entry = await stat(source.path).catch(() => undefined);
  if (entry === undefined) throw new InferenceError('CHECKPOINT_INVALID', `${source.path} does not exist`);
  const replaced = await readReplacements(source);
  const checkpoint = entry.isDirectory() ? await openFolder(source.path) : await openFile(source, replaced);
  const config = {
    ...checkpoint.config,
    unet: replaced.unet?.config(checkpoint.config.unet) ?? checkpoint.config.unet,
  };
  const channels = config.unet.in_channels;
  const latents = config.vae.latent_channels;
  // An inpainting UNet takes the mask and the latents of the rest, too.
  if (channels !== latents && channels !== 2 * latents + 1) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${source.path} has a UNet of ${channels} input channels${OTHER_UNETS.get(channels) ?? ''}, darkroom serves UNets that take the VAE's ${latents}, or ${2 * latents + 1} for inpainting`,
    );
  }
  return {
    ...checkpoint,
    config: {
      ...config,
      vae: replaced.vae?.config ?? config.vae,
      textEncoder: replaced.text_encoder?.config ?? config.textEncoder,
      textEncoder2: replaced.text_encoder_2?.config ?? config.textEncoder2,
      scheduler: { ...config.scheduler, ...saidPrediction(source) },
    },
    readWeights: async (name) => replaced[name]?.files ?? checkpoint.readWeights(name),
  };
}

async function openFolder(path: string): Promise<BareCheckpoint> {
  return {
    path,
    layout: 'diffusers',
    config: await readSdxlConfig(path),
    readWeights: (name) => readComponent(join(path, name), name),
    readTokenizers: async () => [
      await readClipTokenizer(join(path, 'tokenizer')),
      await readClipTokenizer(join(path, 'tokenizer_2')),
    ],
    foreign: [],
  };
}

async function openFile(source: SdxlSource, replaced: Replacements): Promise<BareCheckpoint> {
  const { path } = source;
  if (isGguf(path)) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} is a GGUF file, not a whole SDXL checkpoint; give one, and the UNet in GGUF with ${flagOf(sdxlOptions.SDXL_UNET)} FILE`,
    );
  }
  const { tensors, metadata } = await readSafetensors(path);
  assertSdxl(path, tensors, replaced);
  const part = (name: ComponentName, translate: (tensors: WeightFiles['tensors']) => WeightFiles['tensors']) => ({
    path,
    tensors: translate(below(tensors, PREFIXES[name])),
    metadata,
  });
  const files: Readonly<Record<ComponentName, WeightFiles>> = {
    text_encoder: replaced.text_encoder?.files ?? part('text_encoder', underTextModel),
    text_encoder_2: replaced.text_encoder_2?.files ?? part('text_encoder_2', translateOpenClip),
    unet: part('unet', translateUNet),
    vae: replaced.vae?.files ?? part('vae', translateVae),
  };
  const textEncoder = replaced.text_encoder?.config ?? textEncoderConfigFromShapes(files.text_encoder, false);
  const textEncoder2 = replaced.text_encoder_2?.config ?? textEncoderConfigFromShapes(files.text_encoder_2, true);
  return {
    path,
    layout: 'original',
    config: {
      forceZerosForEmptyPrompt: true,
      unet: unetConfigFromShapes(files.unet, textEncoder2.projection_dim),
      vae: replaced.vae?.config ?? vaeConfigFromShapes(files.vae),
      textEncoder,
      textEncoder2,
      scheduler: { ...SDXL_SCHEDULER, ...foundPrediction(path, tensors, metadata) },
    },
    readWeights: async (name) => files[name],
    readTokenizers: () => readTokenizers(source, [textEncoder, textEncoder2]),
    foreign: [...tensors.keys()].filter((key) => !Object.values(PREFIXES).some((prefix) => key.startsWith(prefix))),
  };
}

/** @throws InferenceError that names what the file is instead, where its names show it, or what it lacks */
function assertSdxl(path: string, tensors: WeightFiles['tensors'], replaced: Replacements): void {
  const keys = [...tensors.keys()];
  const has = (prefix: string) => keys.some((key) => key.startsWith(prefix));
  const refuse = (problem: string): never => {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} ${problem}`);
  };
  if (isLoraFile(keys)) refuse('is a LoRA, not a checkpoint');
  // Of the UNets in this layout only SDXL's takes a pooled embedding. A stray key beside it says nothing.
  const isSdxl = has(`${PREFIXES.unet}label_emb.`) && has(PREFIXES.text_encoder);
  if (has('cond_stage_model.') && !isSdxl) refuse('is a Stable Diffusion 1 or 2 checkpoint; darkroom serves SDXL');
  if (has('conditioner.embedders.0.model.') && !isSdxl) refuse('is the SDXL refiner; darkroom serves the base model');
  if (has('model.diffusion_model.joint_blocks.')) refuse('is a Stable Diffusion 3 checkpoint; darkroom serves SDXL');
  if (has('model.diffusion_model.double_blocks.') || has('double_blocks.'))
    refuse('is a Flux checkpoint; darkroom serves SDXL');
  if (!has(PREFIXES.unet))
    refuse(`has no ${PREFIXES.unet}* tensors: it is not an SDXL checkpoint in the original key layout`);
  const remedies = {
    text_encoder: flagOf(sdxlOptions.SDXL_TEXT_ENCODER),
    text_encoder_2: flagOf(sdxlOptions.SDXL_TEXT_ENCODER_2),
    vae: flagOf(sdxlOptions.SDXL_VAE),
  } as const;
  const edm = keys.find((key) => EDM_MARKERS.test(key));
  if (edm !== undefined)
    refuse(
      `was trained with EDM preconditioning (it has ${edm}), as CosXL and Playground 2.5 are; darkroom samples models that predict noise or v`,
    );
  for (const [name, option] of Object.entries(remedies) as [keyof typeof remedies, string][]) {
    if (replaced[name] !== undefined || has(PREFIXES[name])) continue;
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${path} has no ${PREFIXES[name]}* tensors; give a file that has them with ${option} FILE`,
    );
  }
}

/** Fine-tunes mark their prediction type by two empty keys (ComfyUI, A1111) or in their metadata (ModelSpec 1.0.0). */
function foundPrediction(
  path: string,
  tensors: WeightFiles['tensors'],
  metadata: Readonly<Record<string, string>>,
): object {
  const named = metadata['modelspec.prediction_type'];
  const known = named === undefined ? 'epsilon' : MODELSPEC_PREDICTIONS.get(named.toLowerCase());
  if (known === undefined) {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} predicts "${named?.slice(0, 64)}" (modelspec.prediction_type in its header); darkroom samples models that predict noise or v`,
    );
  }
  return saidPrediction({
    predictionType: tensors.has('v_pred') ? 'v_prediction' : known,
    zeroTerminalSnr: tensors.has('ztsnr') || undefined,
  });
}

function saidPrediction({
  predictionType,
  zeroTerminalSnr,
}: Pick<SdxlSource, 'predictionType' | 'zeroTerminalSnr'>): object {
  return {
    ...(predictionType !== undefined && { prediction_type: predictionType }),
    // Without trailing spacing the first step is not at the last timestep, where the signal is zero: arXiv:2305.08891, 3.3.
    ...(zeroTerminalSnr === true && { rescale_betas_zero_snr: true, timestep_spacing: 'trailing' }),
    ...(zeroTerminalSnr === false && { rescale_betas_zero_snr: false }),
  };
}

interface Replacements {
  readonly text_encoder?: Replacement<SdxlConfig['textEncoder']>;
  readonly text_encoder_2?: Replacement<SdxlConfig['textEncoder']>;
  readonly vae?: Replacement<SdxlConfig['vae']>;
  /** `config`: from that of the checkpoint's UNet. */
  readonly unet?: Replacement<(own: UNetConfig) => UNetConfig>;
}

interface Replacement<Config> {
  readonly files: WeightFiles;
  readonly config: Config;
}

async function readReplacements({
  unet,
  vae,
  textEncoder,
  textEncoder2,
  weightsCache,
}: SdxlSource): Promise<Replacements> {
  const text = async (path: string, name: 'text_encoder' | 'text_encoder_2') => {
    const isSecond = name === 'text_encoder_2';
    if (await isFolder(path)) {
      return { files: await readComponent(path, name), config: await readTextEncoderConfig(path) };
    }
    const files = await readPart(
      path,
      PREFIXES[name],
      'text_model.',
      isSecond ? translateOpenClip : underTextModel,
      weightsCache,
    );
    return { files, config: textEncoderConfigFromShapes(files, isSecond) };
  };
  const autoencoder = async (path: string) => {
    if (await isFolder(path)) return { files: await readComponent(path, 'vae'), config: await readVaeConfig(path) };
    const files = await readPart(path, PREFIXES.vae, 'encoder.down_blocks.', translateVae, weightsCache);
    return { files, config: vaeConfigFromShapes(files) };
  };
  const denoiser = async (path: string) => {
    if (await isFolder(path)) {
      const config = await readUNetConfig(path);
      return { files: await readComponent(path, 'unet'), config: () => config };
    }
    const files = await readPart(path, PREFIXES.unet, 'down_blocks.', translateUNet, weightsCache);
    // What does not follow from shapes, such as heads, is the checkpoint's.
    const channels = new WeightShapes(files, 'an SDXL').of('conv_in.weight')[1];
    return { files, config: (own: UNetConfig) => ({ ...own, in_channels: channels ?? own.in_channels }) };
  };
  return {
    ...(unet !== undefined && { unet: await denoiser(unet) }),
    ...(textEncoder !== undefined && { text_encoder: await text(textEncoder, 'text_encoder') }),
    ...(textEncoder2 !== undefined && { text_encoder_2: await text(textEncoder2, 'text_encoder_2') }),
    ...(vae !== undefined && { vae: await autoencoder(vae) }),
  };
}

/** The weights of one part in a folder of diffusers' layout. */
async function readComponent(folder: string, name: ComponentName): Promise<WeightFiles> {
  const files = await readWeightFiles(folder, STEMS[name]);
  return { ...files, tensors: underTextModel(files.tensors) };
}

/** transformers 5 stores CLIP's text model without the prefix that everyone else writes. */
function underTextModel(tensors: WeightFiles['tensors']): WeightFiles['tensors'] {
  if (!tensors.has('embeddings.token_embedding.weight')) return tensors;
  return renamed(tensors, (key) => (/^(embeddings|encoder|final_layer_norm)\./.test(key) ? `text_model.${key}` : key));
}

/** One part in a file of its own: with the checkpoint's prefix or without, in diffusers' names or the original ones. */
async function readPart(
  path: string,
  prefix: string,
  ours: string,
  translate: (tensors: WeightFiles['tensors']) => WeightFiles['tensors'],
  cacheFolder: string | undefined,
): Promise<WeightFiles> {
  const files: WeightFiles = isGguf(path)
    ? await readGgufWeights(path, { cacheFolder })
    : { path, ...(await readSafetensors(path)) };
  const own = below(files.tensors, prefix);
  const bare = own.size > 0 ? own : files.tensors;
  const isOurs = [...bare.keys()].some((key) => key.startsWith(ours));
  return { ...files, tensors: isOurs ? bare : translate(bare) };
}

/** @param encoders the configurations of both text encoders */
async function readTokenizers(
  { path, tokenizer }: SdxlSource,
  encoders: readonly TextEncoderConfig[],
): Promise<readonly [ClipTokenizer, ClipTokenizer]> {
  const folder = tokenizer ?? dirname(path);
  const [first, second] = [join(folder, 'tokenizer'), join(folder, 'tokenizer_2')];
  // OpenCLIP's vocabulary is CLIP's; it pads with zeros.
  const padded = { padId: 0 };
  if (await isFolder(first)) {
    return [
      await readClipTokenizer(first),
      (await isFolder(second)) ? await readClipTokenizer(second) : await readClipTokenizer(first, padded),
    ];
  }
  if (tokenizer !== undefined) return [await readClipTokenizer(folder), await readClipTokenizer(folder, padded)];
  const other = encoders.find(({ vocab_size }) => vocab_size !== PUBLISHED_CLIP_TOKENS);
  if (other !== undefined) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${path} has a text encoder of ${other.vocab_size} tokens, CLIP's published vocabulary has ${PUBLISHED_CLIP_TOKENS}; give the folder of the model's own tokenizer with ${flagOf(sdxlOptions.SDXL_TOKENIZER)} FOLDER`,
    );
  }
  return [await readPublishedClip(), await readPublishedClip(padded)];
}

async function isFolder(path: string): Promise<boolean> {
  const entry = await stat(path).catch(() => undefined);
  return entry?.isDirectory() ?? false;
}
