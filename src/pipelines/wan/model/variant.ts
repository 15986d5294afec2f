import { InferenceError } from '../../../errors.js';
import type { FrameConditioning, FramePlace } from '../../pipeline.js';
import type { TransformerConfig } from './config.js';

/**
 * The input that a transformer was trained with beside the text: none, VACE's control, or latents and images of known frames.
 * `text_image_to_video`, WAN 2.2 of 5B, has a timestep for each frame, and takes a clean first one.
 * `fun_inp`, Fun-InP of VideoX-Fun, has the files of image-to-video and takes a last frame, too; the image encoder sees the first one alone.
 * `fun_control`, its Fun-Control, takes the latents of a control video and of a first frame, V1.1 also a reference image.
 */
const wanVariants = [
  'text_to_video',
  'vace',
  'image_to_video',
  'fun_inp',
  'fun_control',
  'text_image_to_video',
] as const;
export type WanVariant = (typeof wanVariants)[number];

/** Channels of the folded masks in VACE's control: one for each pixel that a latent stands for. */
export const MASK_PIXELS = 64;
/** Channels of the masks of image-to-video's known frames: one for each frame that a latent stands for. */
export const MASK_FRAMES = 4;

/** End of messages that refuse another variant. */
export const SERVED =
  'darkroom serves text-to-video, VACE, image-to-video, Fun-InP and Fun-Control models of WAN 2.1, and WAN 2.2 5B';

/** Latent channels of WAN 2.2's own VAE, with which the 5B model alone was trained. */
const LATENTS_OF_2_2 = 48;

/** WAN's own image-to-video models are of 14B, which have 40 layers. Fun-InP's 14B files cannot be told from them. */
const LAYERS_OF_1_3B = 30;

/** Reads the variant off the configuration, in either layout. */
export function variantOf(transformer: TransformerConfig): WanVariant {
  if (transformer._class_name === 'WanVACETransformer3DModel') return 'vace';
  const { in_channels, out_channels, image_dim, pos_embed_seq_len, num_layers } = transformer;
  const latents = out_channels ?? in_channels;
  if (in_channels === latents) return latents === LATENTS_OF_2_2 ? 'text_image_to_video' : 'text_to_video';
  if (in_channels === 3 * latents) return 'fun_control';
  const seesOneImage = image_dim != null && pos_embed_seq_len == null;
  return seesOneImage && num_layers === LAYERS_OF_1_3B ? 'fun_inp' : 'image_to_video';
}

/** True for a transformer of a timestep for each frame of latents, not one for all. */
export function hasFrameTimesteps(transformer: TransformerConfig): boolean {
  return variantOf(transformer) === 'text_image_to_video';
}

/**
 * Checks that the transformer is a variant that darkroom serves, and that its fields agree.
 * @param path what messages name
 * @throws InferenceError MODEL_UNSUPPORTED that names what it is instead, CHECKPOINT_INVALID
 */
export function assertVariant(transformer: TransformerConfig, path: string): void {
  const { in_channels: channels, out_channels, image_dim: images, added_kv_proj_dim: added, _class_name } = transformer;
  const refuse = (what: string): never => {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} describes ${what}; ${SERVED}`);
  };
  if (!/^Wan(VACE)?Transformer3DModel$/.test(_class_name)) refuse(`a ${_class_name}`);
  const latents = out_channels ?? channels;
  const variant = variantOf(transformer);
  if (variant === 'fun_control' && images == null) refuse('a Fun-Control model that takes no images');
  if (transformer.add_ref_conv && variant !== 'fun_control') {
    refuse(`a model of ${channels} input channels that takes a reference image`);
  }
  const takesFrames = frameConditioningOf(transformer).method === 'image_conditioning';
  const wanted = takesFrames ? 2 * latents + MASK_FRAMES : latents;
  if (channels !== wanted && variant !== 'fun_control') refuse(`a model of ${channels} input channels`);
  if ((images == null) !== (added == null) || (images != null && !takesFrames)) {
    refuse(`a ${variant === 'vace' ? 'VACE' : 'WAN'} model that takes images in an unknown way`);
  }
  if (variant === 'vace') assertVaceLayers(transformer, latents, path);
}

function assertVaceLayers(
  { vace_layers: layers, vace_in_channels: channels, num_layers: count }: TransformerConfig,
  latents: number,
  path: string,
): void {
  const refuse = (problem: string): never => {
    throw new InferenceError('CHECKPOINT_INVALID', `${path}: ${problem}`);
  };
  const isAscending = layers.every((layer, i) => i === 0 || layer > (layers[i - 1] ?? 0));
  if (layers[0] !== 0 || !isAscending || (layers.at(-1) ?? 0) >= count) {
    refuse(`vace_layers ${layers.join(', ')} must begin with 0, ascend and be below the number of layers, ${count}`);
  }
  const wanted = 2 * latents + MASK_PIXELS;
  if (channels !== wanted)
    refuse(`vace_in_channels ${channels} must be ${wanted}: two latents and the mask of a patch of pixels`);
}

/** Known frames that a model takes, and the method by which it takes them. */
export function frameConditioningOf(transformer: TransformerConfig): FrameConditioning {
  switch (variantOf(transformer)) {
    case 'text_to_video':
      return { method: 'latent_hold', takes: ['start', 'end'], needs: [] };
    case 'text_image_to_video':
      return { method: 'clean_frames', takes: ['start'], needs: [] };
    case 'vace':
      return { method: 'vace', takes: ['start', 'end', 'look'], needs: [], takesControlVideo: true };
    case 'fun_inp':
      return { method: 'image_conditioning', takes: ['start', 'end'], needs: ['start'] };
    case 'fun_control': {
      const takes: readonly FramePlace[] = transformer.add_ref_conv ? ['start', 'look'] : ['start'];
      return { method: 'image_conditioning', takes, needs: [], takesControlVideo: true };
    }
    case 'image_to_video': {
      // A model with an image encoder takes as many images as it was trained on: one, or two that it distinguishes.
      const { image_dim: images, pos_embed_seq_len: positions } = transformer;
      const isOfTwo = positions != null;
      const takes: readonly FramePlace[] = images == null || isOfTwo ? ['start', 'end'] : ['start'];
      return { method: 'image_conditioning', takes, needs: isOfTwo ? ['start', 'end'] : ['start'] };
    }
  }
}
