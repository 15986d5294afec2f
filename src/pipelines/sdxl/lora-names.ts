import type { LoraNames, LoraTarget } from '../lora/fit-lora.js';
import { originalUNetNames } from './checkpoint/original-names.js';
import type { SdxlConfig } from './model/config.js';
import { planSdxlWeights } from './weights.js';

/** Prefixes of module names: of kohya's scripts, with `_` for every dot, and of ComfyUI. PEFT and diffusers take the component's own name. */
const KOHYA = { unet: 'lora_unet_', text_encoder: 'lora_te1_', text_encoder_2: 'lora_te2_' } as const;
const COMFY = {
  text_encoder: 'text_encoders.clip_l.transformer.',
  text_encoder_2: 'text_encoders.clip_g.transformer.',
} as const;
const components = ['unet', 'text_encoder', 'text_encoder_2'] as const;

/**
 * The modules of an SDXL as LoRA files name them: `unet.down_blocks.1.…` with or without its prefix, `lora_unet_down_blocks_1_…`
 * and, of the UNet in its original layout, `lora_unet_input_blocks_4_…` and `diffusion_model.input_blocks.4.…`.
 */
export function sdxlLoraNames(config: SdxlConfig): LoraNames {
  const weights = new Map<string, LoraTarget>();
  // No LoRA is made for the matrices of an IP-Adapter.
  const plan = planSdxlWeights({ ...config, imagePrompt: undefined });
  const original = originalUNetNames(plan.unet.map(([name]) => name));
  for (const component of components) {
    const shapes = new Map(plan[component]);
    for (const [key, shape] of plan[component]) {
      if (!key.endsWith('.weight')) continue;
      const module = moduleOf(key);
      const layout = component === 'unet' ? 'diffusers' : undefined;
      const target: LoraTarget = { component, module, shape, biasShape: shapes.get(`${module}.bias`), layout };
      weights.set(`${component}.${module}`, target);
      weights.set(KOHYA[component] + module.replaceAll('.', '_'), target);
      if (component !== 'unet') {
        weights.set(COMFY[component] + module, target);
        continue;
      }
      weights.set(module, target);
      const other = original.get(key);
      if (other === undefined) continue;
      const inOriginal: LoraTarget = { ...target, layout: 'original' };
      weights.set(KOHYA.unet + moduleOf(other).replaceAll('.', '_'), inOriginal);
      weights.set(`diffusion_model.${moduleOf(other)}`, inOriginal);
    }
  }
  return { base: 'SDXL', weights };
}

function moduleOf(key: string): string {
  return key.slice(0, -'.weight'.length);
}
