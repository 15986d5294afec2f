import { InferenceError } from '../../../errors.js';
import type { FrameConditioning, FramePlace } from '../../pipeline.js';
import type { TransformerConfig } from './config.js';

/** The input that a transformer was trained with beside the text: none, VACE's control, or latents and images of known frames. */
const wanVariants = ['text_to_video', 'vace', 'image_to_video'] as const;
export type WanVariant = (typeof wanVariants)[number];

/** Channels of the folded masks in VACE's control: one for each pixel that a latent stands for. */
export const MASK_PIXELS = 64;
/** Channels of the masks of image-to-video's known frames: one for each frame that a latent stands for. */
export const MASK_FRAMES = 4;

/** Reads the variant off the configuration, in either layout. */
export function variantOf(
  transformer: Pick<TransformerConfig, '_class_name' | 'in_channels' | 'out_channels'>,
): WanVariant {
  if (transformer._class_name === 'WanVACETransformer3DModel') return 'vace';
  return transformer.in_channels === (transformer.out_channels ?? transformer.in_channels)
    ? 'text_to_video'
    : 'image_to_video';
}

/**
 * Checks that the transformer is a variant that darkroom serves, and that its fields agree.
 * @param path what messages name
 * @throws InferenceError MODEL_UNSUPPORTED that names what it is instead, CHECKPOINT_INVALID
 */
export function assertVariant(transformer: TransformerConfig, path: string): void {
  const { in_channels: channels, out_channels, image_dim: images, added_kv_proj_dim: added, _class_name } = transformer;
  const refuse = (what: string): never => {
    throw new InferenceError(
      'MODEL_UNSUPPORTED',
      `${path} describes ${what}; darkroom serves text-to-video, VACE and image-to-video models of WAN 2.1`,
    );
  };
  if (!/^Wan(VACE)?Transformer3DModel$/.test(_class_name)) refuse(`a ${_class_name}`);
  if (channels === 48) refuse('a WAN 2.2 model (48 latent channels)');
  const latents = out_channels ?? channels;
  const variant = variantOf(transformer);
  const wanted = variant === 'image_to_video' ? 2 * latents + MASK_FRAMES : latents;
  if (channels !== wanted) refuse(`a model of ${channels} input channels`);
  if ((images == null) !== (added == null) || (images != null && variant !== 'image_to_video')) {
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
    case 'vace':
      return { method: 'vace', takes: ['start', 'end'], needs: [] };
    case 'image_to_video': {
      // A model with an image encoder takes as many images as it was trained on: one, or two that it distinguishes.
      const { image_dim: images, pos_embed_seq_len: positions } = transformer;
      const isOfTwo = positions != null;
      const takes: readonly FramePlace[] = images == null || isOfTwo ? ['start', 'end'] : ['start'];
      return { method: 'image_conditioning', takes, needs: isOfTwo ? ['start', 'end'] : ['start'] };
    }
  }
}
