import { flowSchedulerNamed, flowSchedulerNames } from '../../schedulers/flow-schedulers.js';
import type { Family } from '../family.js';
import type { WanSource } from './checkpoint/checkpoint.js';
import type { WanVariant } from './model/variant.js';
import { wanNegativePrompt } from './negative-prompt.js';
import { wanSamplingPresets } from './sampling-presets.js';
import { type WanVariables, wanOptions, wanVariables } from './variables.js';

const VARIANTS: Readonly<Record<WanVariant, string>> = {
  text_to_video: 'text-to-video',
  vace: 'VACE',
  image_to_video: 'image-to-video',
  fun_inp: 'Fun-InP',
  text_image_to_video: 'text-image-to-video',
  fun_control: 'Fun-Control',
};

/** WAN 2.1, and the 5B model of 2.2. */
export const wan: Family<WanVariables, WanSource> = {
  name: 'wan',
  title: 'WAN',
  loraBase: 'WAN 2.1',
  video: {
    minFramesWithEnd: 5,
    // 4n + 1: a request for 83 gives 81, as in the original code.
    roundFrames: (frames) => 1 + 4 * Math.floor((frames - 1) / 4),
  },
  isBatched: false,
  schedulers: {
    names: flowSchedulerNames,
    default: 'flow_unipc',
    resolve: flowSchedulerNamed,
  },
  samplingPresets: wanSamplingPresets,
  bareCall: { makes: 'video', steps: 50, guidanceScale: 5, hasNegativePrompt: true },
  negativePrompt: wanNegativePrompt,
  references: {
    defaultStrength: 0.85,
    // The contract's rule: the stronger the reference conditions, the stronger the text must be.
    guidanceScale: (strength) => 5 + 4 * strength,
  },
  takes: {
    weights: false,
    stepSaving: true,
    skipLayers: true,
    embeddings: false,
    controls: false,
    upscale: false,
    guidanceRescale: false,
    dynamicThresholding: true,
    deepCache: false,
    controlVideo: true,
  },

  variables: wanVariables,
  options: wanOptions,
  modelName: ({ WAN_NAME }) => WAN_NAME,
  replicas: ({ WAN_REPLICAS }) => WAN_REPLICAS,
  samplingPreset: ({ WAN_SAMPLING_PRESET }) => WAN_SAMPLING_PRESET,
  sourceFrom(variables) {
    if (variables.WAN_PATH === undefined) return undefined;
    return {
      path: variables.WAN_PATH,
      vae: variables.WAN_VAE,
      textEncoder: variables.WAN_TEXT_ENCODER,
      imageEncoder: variables.WAN_IMAGE_ENCODER,
      tokenizer: variables.WAN_TOKENIZER,
      keepsTextEncoder: variables.WAN_TEXT_ENCODER_RESIDENT === 'true',
    };
  },

  // A diffusers folder names its pipeline. The original code's folder has no index; its file has a patch embedding.
  recognises: ({ isFolder, index, keys }) =>
    (isFolder && (index === undefined || index.includes('"Wan'))) ||
    keys.some((key) => /(^|\.)patch_embedding\.weight$/.test(key)),
  async open(source, options) {
    const { createWanPipeline } = await import('./pipeline.js');
    return createWanPipeline({ ...source, ...options });
  },
  async inspect(source) {
    const { inspectWan } = await import('./inspect.js');
    const inspection = await inspectWan(source);
    const version = inspection.variant === 'text_image_to_video' ? '2.2' : '2.1';
    return { title: `WAN ${version} ${VARIANTS[inspection.variant]}`, ...inspection };
  },
  async planMemory(source, dialectsOf, run, cardBytes) {
    const { planWanMemory } = await import('./plan-memory.js');
    return planWanMemory(source, dialectsOf, run, cardBytes);
  },
};
