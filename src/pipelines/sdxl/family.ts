import { schedulerNamed, schedulerNames } from '../../schedulers/beta-schedulers.js';
import type { Family } from '../family.js';
import type { SdxlSource } from './checkpoint/checkpoint.js';
import { sdxlNegativePrompt } from './negative-prompt.js';
import { sdxlSamplingPresets } from './sampling-presets.js';
import { type SdxlVariables, sdxlOptions, sdxlVariables } from './variables.js';

/** Stable Diffusion XL. */
export const sdxl: Family<SdxlVariables, SdxlSource> = {
  name: 'sdxl',
  title: 'SDXL',
  loraBase: 'SDXL',
  isBatched: true,
  schedulers: {
    names: schedulerNames,
    default: 'euler',
    resolve: (name) => schedulerNamed(name, schedulerNames),
  },
  samplingPresets: sdxlSamplingPresets,
  // As diffusers: without a job type an absent negative prompt stays absent, which is not an empty one.
  bareCall: { makes: 'images', steps: 15, guidanceScale: 6, hasNegativePrompt: false },
  negativePrompt: sdxlNegativePrompt,
  references: { defaultStrength: 0.5, takesMask: true },
  takes: {
    weights: true,
    stepSaving: false,
    skipLayers: false,
    embeddings: true,
    controls: true,
    upscale: true,
    guidanceRescale: true,
    dynamicThresholding: true,
    deepCache: true,
    controlVideo: false,
  },

  variables: sdxlVariables,
  options: sdxlOptions,
  modelName: ({ SDXL_NAME }) => SDXL_NAME,
  replicas: ({ SDXL_REPLICAS }) => SDXL_REPLICAS,
  samplingPreset: ({ SDXL_SAMPLING_PRESET }) => SDXL_SAMPLING_PRESET,
  sourceFrom(variables) {
    if (variables.SDXL_PATH === undefined) return undefined;
    return {
      path: variables.SDXL_PATH,
      tokenizer: variables.SDXL_TOKENIZER,
      unet: variables.SDXL_UNET,
      vae: variables.SDXL_VAE,
      textEncoder: variables.SDXL_TEXT_ENCODER,
      textEncoder2: variables.SDXL_TEXT_ENCODER_2,
      ipAdapter: variables.SDXL_IP_ADAPTER,
      ipAdapterEncoder: variables.SDXL_IP_ADAPTER_ENCODER,
      predictionType: variables.SDXL_PREDICTION_TYPE,
      zeroTerminalSnr: variables.SDXL_ZERO_TERMINAL_SNR && variables.SDXL_ZERO_TERMINAL_SNR === 'true',
    };
  },

  // A folder with a UNet and no index is an incomplete copy, whose missing index is reported.
  recognises: ({ index, entries, keys }) =>
    (index === undefined ? entries.includes('unet') : index.includes('"StableDiffusionXL')) ||
    keys.some((key) => key.startsWith('model.diffusion_model.input_blocks.')),
  async open(source, options) {
    const { createSdxlPipeline } = await import('./pipeline.js');
    return createSdxlPipeline({ ...source, ...options });
  },
  async inspect(source) {
    const { inspectSdxl } = await import('./inspect.js');
    return inspectSdxl(source);
  },
  async planMemory(source, dialectsOf, run) {
    const { planSdxlMemory } = await import('./plan-memory.js');
    return planSdxlMemory(source, dialectsOf, run);
  },
  async openTokenizer(source) {
    const { openPromptTokenizer } = await import('./prompt/tokenize.js');
    return openPromptTokenizer(source);
  },
};
