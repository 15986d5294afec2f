import type { SamplingPresets } from '../common/sampling-preset.js';

/**
 * WAN models, and LoRAs, that were distilled for a few steps: https://github.com/guandeh17/Self-Forcing,
 * https://github.com/ModelTC/LightX2V
 */
export const wanSamplingPresets = {
  self_forcing: { scheduler: 'flow_lcm', steps: 4, guidanceScale: 1, shift: 5 },
  lightx2v: { scheduler: 'flow_lcm', steps: 4, guidanceScale: 1, shift: 5 },
} as const satisfies SamplingPresets;
