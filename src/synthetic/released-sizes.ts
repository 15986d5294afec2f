import { join } from 'node:path';
import { writeSyntheticQwen } from './qwen.js';
import { writeSyntheticSdxl } from './sdxl.js';
import { writeSyntheticWan } from './wan.js';

/**
 * Writes one checkpoint of each kind in its released size: headers and holes in place of weights, so that they take no room.
 * @returns the variables that name them
 */
export async function writeReleasedSizes(folder: string): Promise<Readonly<Record<string, string>>> {
  return {
    SDXL_PATH: await writeSyntheticSdxl(join(folder, 'sdxl'), 'sdxl-base', 'F16', true),
    WAN_PATH: await writeSyntheticWan(join(folder, 'wan'), 'wan-1.3b', 'BF16', true),
    QWEN_PATH: await writeSyntheticQwen(join(folder, 'qwen'), 'qwen-7b', 'BF16', true),
  };
}
