import type { SamplingPreset, SamplingPresets } from '../common/sampling-preset.js';

const unguided = (scheduler: string, steps: number): SamplingPreset => ({ scheduler, steps, guidanceScale: 0 });

/**
 * SDXLs that were distilled for a few steps, and LoRAs that make any SDXL one, with the settings of their own pages:
 * https://huggingface.co/stabilityai/sdxl-turbo, https://huggingface.co/ByteDance/SDXL-Lightning,
 * https://huggingface.co/ByteDance/Hyper-SD, https://huggingface.co/tianweiy/DMD2, https://huggingface.co/latent-consistency/lcm-lora-sdxl
 */
export const sdxlSamplingPresets = {
  turbo: unguided('euler_ancestral_trailing', 4),
  lightning_2: unguided('euler_trailing', 2),
  lightning_4: unguided('euler_trailing', 4),
  lightning_8: unguided('euler_trailing', 8),
  hyper_2: unguided('ddim_trailing', 2),
  hyper_4: unguided('ddim_trailing', 4),
  hyper_8: unguided('ddim_trailing', 8),
  tcd: unguided('tcd', 4),
  dmd2: unguided('lcm_trailing', 4),
  lcm: { scheduler: 'lcm', steps: 4, guidanceScale: 1 },
} as const satisfies SamplingPresets;
