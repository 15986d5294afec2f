import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InferenceError } from '../../errors.js';
import { readPth } from '../../graph/pth.js';
import { readSafetensors } from '../../graph/safetensors.js';
import { readWeightFiles, type WeightFiles } from '../../graph/weight-files.js';
import { readOriginalConfig, readTextEncoderConfig, readVaeConfig, readWanConfig, type WanConfig } from './config.js';
import { textEncoderConfigFromShapes, transformerConfigFromShapes, vaeConfigFromShapes } from './config-from-shapes.js';
import { translateTextEncoder, translateTransformer, translateVae, withoutPrefix } from './original-layout.js';
import { assertVariant } from './variant.js';

/** The parts that a checkpoint is made of, as its folders are called. */
export const componentNames = ['transformer', 'vae', 'text_encoder'] as const;
export type ComponentName = (typeof componentNames)[number];

/** Where a model comes from: the checkpoint, and what the operator says beside it. */
export interface WanSource {
  /** A diffusers-layout folder, a folder as the original code has it, or the transformer's `.safetensors` file alone. */
  readonly path: string;
  /** A VAE of its own, file or diffusers folder. Omitted: the checkpoint's, or the one beside it. */
  readonly vae?: string | undefined;
  /** UMT5-XXL's encoder of its own, file or folder. Omitted: the checkpoint's, or the one beside it. */
  readonly textEncoder?: string | undefined;
  /** A folder with UMT5's tokenizer.json or spiece.model. Omitted: the checkpoint's. */
  readonly tokenizer?: string | undefined;
  /** Whether the text encoder stays loaded between jobs. Omitted: it is loaded for the prompts of a job and given back. */
  readonly keepsTextEncoder?: boolean | undefined;
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

const STEMS: Readonly<Record<ComponentName, readonly string[]>> = {
  transformer: ['diffusion_pytorch_model'],
  vae: ['diffusion_pytorch_model'],
  text_encoder: ['model'],
};

/** What lies beside the original transformer, as the original code calls it and as it is repackaged. */
const BESIDE: Readonly<Record<'vae' | 'text_encoder', readonly string[]>> = {
  vae: ['Wan2.1_VAE.pth', 'Wan2.1_VAE.safetensors', 'wan_2.1_vae.safetensors'],
  text_encoder: [
    'models_t5_umt5-xxl-enc-bf16.pth',
    'models_t5_umt5-xxl-enc-bf16.safetensors',
    'umt5-xxl-enc-bf16.safetensors',
    'umt5_xxl_fp16.safetensors',
  ],
};

/** The original code's own: https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/generate.py#L69 */
const ORIGINAL_SCHEDULER = { num_train_timesteps: 1000, flow_shift: 5 } as const;

/** @throws InferenceError CHECKPOINT_INVALID or MODEL_UNSUPPORTED: what is wrong with the file or folder, in one sentence */
export async function openWanCheckpoint(source: WanSource): Promise<WanCheckpoint> {
  const { path } = source;
  if (!(await exists(path))) throw new InferenceError('CHECKPOINT_INVALID', `${path} does not exist`);
  const vae = source.vae === undefined ? undefined : await readVae(source.vae);
  const text = source.textEncoder === undefined ? undefined : await readTextEncoder(source.textEncoder);
  if (!(await isFolder(path)) || !(await exists(join(path, 'model_index.json')))) {
    return openOriginal(source, vae, text);
  }
  const config = await readWanConfig(path);
  return {
    path,
    layout: 'diffusers',
    config: { ...config, vae: vae?.config ?? config.vae, textEncoder: text?.config ?? config.textEncoder },
    tokenizer: source.tokenizer ?? join(path, 'tokenizer'),
    readWeights: async (name) => {
      const replaced = { transformer: undefined, vae: vae?.files, text_encoder: text?.files }[name];
      return replaced ?? readWeightFiles(join(path, name), STEMS[name]);
    },
  };
}

async function openOriginal(
  { path, tokenizer }: WanSource,
  vae: Part<WanConfig['vae']> | undefined,
  text: Part<WanConfig['textEncoder']> | undefined,
): Promise<WanCheckpoint> {
  const folder = (await isFolder(path)) ? path : dirname(path);
  const found = folder === path ? await readWeightFiles(path, STEMS.transformer) : await readTensors(path);
  const bare = withoutPrefix(found.tensors);
  assertWan(found.path, bare);
  const isOurs = bare.has('condition_embedder.time_proj.weight');
  const transformer = { ...found, tensors: isOurs ? bare : translateTransformer(bare) };
  const config = transformerConfigFromShapes(transformer, await readOriginalConfig(folder));
  assertVariant(config, found.path);
  const autoencoder = vae ?? (await readVae(await beside(folder, 'vae', '--vae')));
  const encoder = text ?? (await readTextEncoder(await beside(folder, 'text_encoder', '--text-encoder')));
  return {
    path,
    layout: 'original',
    config: {
      transformer: config,
      vae: autoencoder.config,
      textEncoder: encoder.config,
      scheduler: ORIGINAL_SCHEDULER,
    },
    tokenizer: tokenizer ?? join(folder, 'google', 'umt5-xxl'),
    readWeights: async (name) => ({ transformer, vae: autoencoder.files, text_encoder: encoder.files })[name],
  };
}

/** Says what the file is instead, where its names tell. */
function assertWan(path: string, tensors: WeightFiles['tensors']): void {
  const refuse = (problem: string): never => {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} ${problem}`);
  };
  const keys = [...tensors.keys()];
  const has = (prefix: string) => keys.some((key) => key.startsWith(prefix));
  const served = 'darkroom serves text-to-video, VACE and image-to-video models of WAN 2.1';
  if (keys.some((key) => /(^lora_|\.lora_(down|up|A|B)\.|\.lora\.)/.test(key))) refuse('is a LoRA, not a checkpoint');
  if (has('img_emb.') || has('condition_embedder.image_embedder.')) refuse(`is an image-to-video model; ${served}`);
  if (has('motion_encoder.') || has('control_adapter.')) refuse(`is a WAN with inputs of its own; ${served}`);
  if (has('decoder.') && !has('blocks.')) refuse('is a VAE; give the transformer, and the VAE with --vae');
  if (!has('patch_embedding.') || !has('blocks.'))
    refuse('has no patch_embedding.* and blocks.* tensors: it is no WAN');
}

interface Part<Config> {
  readonly files: WeightFiles;
  readonly config: Config;
}

async function readVae(path: string): Promise<Part<WanConfig['vae']>> {
  if (await isFolder(path)) return { files: await readWeightFiles(path, STEMS.vae), config: await readVaeConfig(path) };
  const files = await readTensors(path);
  const isOurs = files.tensors.has('encoder.conv_in.weight');
  const ours = isOurs ? files : { ...files, tensors: translateVae(files.tensors) };
  return { files: ours, config: vaeConfigFromShapes(ours) };
}

async function readTextEncoder(path: string): Promise<Part<WanConfig['textEncoder']>> {
  if (await isFolder(path)) {
    return { files: await readWeightFiles(path, STEMS.text_encoder), config: await readTextEncoderConfig(path) };
  }
  const files = await readTensors(path);
  const isOurs = files.tensors.has('shared.weight');
  const ours = isOurs ? files : { ...files, tensors: translateTextEncoder(files.tensors) };
  return { files: ours, config: textEncoderConfigFromShapes(ours) };
}

/** One file's tensors, by the format that its name says. */
async function readTensors(path: string): Promise<WeightFiles> {
  if (/\.(pth|pt|ckpt|bin)$/.test(path)) return { path, tensors: (await readPth(path)).tensors, metadata: {} };
  const { tensors, metadata } = await readSafetensors(path);
  return { path, tensors, metadata };
}

async function beside(folder: string, name: keyof typeof BESIDE, option: string): Promise<string> {
  for (const file of BESIDE[name]) if (await exists(join(folder, file))) return join(folder, file);
  throw new InferenceError(
    'CHECKPOINT_INVALID',
    `${folder} has no ${BESIDE[name][0]} (or ${BESIDE[name].slice(1).join(', ')}); give one with ${option} FILE`,
  );
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}
