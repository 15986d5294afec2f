import type { LatentColours } from '../common/preview.js';

/**
 * Colours of SDXL's scaled latents: a linear fit that others measured on the released VAE.
 * https://github.com/comfyanonymous/ComfyUI/blob/v0.2.7/comfy/latent_formats.py#L33
 */
export const sdxlColours: LatentColours = {
  channels: [
    [0.392, 0.4054, 0.4549],
    [-0.2634, -0.0196, 0.0653],
    [0.0568, 0.1687, -0.0755],
    [-0.3112, -0.2359, -0.2076],
  ],
  bias: [0, 0, 0],
};
