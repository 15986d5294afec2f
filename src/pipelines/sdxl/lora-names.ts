import type { LoraNames, LoraTarget } from '../lora/fit-lora.js';
import { originalUNetNames } from './checkpoint/original-names.js';
import type { SdxlConfig } from './model/config.js';
import { planSdxlWeights } from './weights.js';

/** Prefixes of module names in files of kohya's scripts; PEFT and diffusers take the component's own name. */
const KOHYA = { unet: 'lora_unet_', text_encoder: 'lora_te1_', text_encoder_2: 'lora_te2_' } as const;
const components = ['unet', 'text_encoder', 'text_encoder_2'] as const;

/**
 * The modules of an SDXL as LoRA files name them: `unet.down_blocks.1.…`, `lora_unet_down_blocks_1_…` and, of the UNet in its
 * original layout, `lora_unet_input_blocks_4_…`.
 */
export function sdxlLoraNames(config: SdxlConfig): LoraNames {
  const weights = new Map<string, LoraTarget>();
  const plan = planSdxlWeights(config);
  const original = originalUNetNames(plan.unet.map(([name]) => name));
  for (const component of components) {
    for (const [key, shape] of plan[component]) {
      if (!key.endsWith('.weight')) continue;
      const target = { component, key, shape };
      const module = moduleOf(key);
      weights.set(`${component}.${module}`, target);
      weights.set(KOHYA[component] + module.replaceAll('.', '_'), target);
      const other = component === 'unet' ? original.get(key) : undefined;
      if (other !== undefined) weights.set(KOHYA.unet + moduleOf(other).replaceAll('.', '_'), target);
    }
  }
  return { base: 'SDXL', weights };
}

function moduleOf(key: string): string {
  return key.slice(0, -'.weight'.length);
}
