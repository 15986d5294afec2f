import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';

/**
 * The tiny SDXL with half of its layers, for tests that ask nothing of single ones: it opens in half of the time. LoRAs of the
 * goldens are for the whole one.
 *
 * @returns the folder
 */
export function writeShallowSdxl(folder: string): Promise<string> {
  return writeTinySdxl(folder, 'F16', {
    'unet/config.json': { layers_per_block: 1, transformer_layers_per_block: [1, 1, 1] },
    'vae/config.json': { layers_per_block: 1 },
  });
}

/** The same of the tiny WAN. */
export function writeShallowWan(folder: string): Promise<string> {
  return writeSyntheticWan(folder, 'wan-tiny', 'BF16', false, { 'vae/config.json': { num_res_blocks: 1 } });
}
