import type { LoraNames, LoraTarget } from '../lora/fit-lora.js';
import { originalTransformerName } from './checkpoint/original-layout.js';
import type { WanConfig } from './model/config.js';
import { planWanWeights } from './weights.js';

const component = 'transformer';

/**
 * The modules of a WAN transformer as LoRA files name them: `transformer.blocks.0.attn1.to_q` of diffusers,
 * `diffusion_model.blocks.0.self_attn.q` of the original code and ComfyUI, with or without what stands before the blocks, and
 * `lora_unet_blocks_0_self_attn_q` of kohya's scripts, with two underscores before the blocks in WAN Fun's, which
 * ComfyUI makes one of: https://github.com/comfyanonymous/ComfyUI/blob/master/comfy/lora_convert.py
 */
export function wanLoraNames(config: WanConfig): LoraNames {
  const weights = new Map<string, LoraTarget>();
  const plan = planWanWeights(config).transformer;
  const shapes = new Map(plan);
  for (const [key, shape] of plan) {
    const isParameter = key.endsWith('scale_shift_table');
    if (!isParameter && !key.endsWith('.weight')) continue;
    const [module, original] = [key, originalTransformerName(key)].map((name) => name.replace(/\.weight$/, ''));
    if (module === undefined) continue;
    const target: LoraTarget = { component, module, isParameter, shape, biasShape: shapes.get(`${module}.bias`) };
    for (const name of [module, original]) {
      for (const prefix of ['', 'transformer.', 'diffusion_model.']) weights.set(`${prefix}${name}`, target);
      for (const prefix of ['lora_unet_', 'lora_unet__']) weights.set(prefix + name?.replaceAll('.', '_'), target);
    }
  }
  return { base: 'WAN 2.1', weights };
}
