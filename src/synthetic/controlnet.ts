import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSdxlConfig } from '../pipelines/sdxl/checkpoint/read-config.js';
import { planControlNetWeights } from '../pipelines/sdxl/control/controlnet.js';
import type { FloatType } from '../weights/safetensors.js';
import { copySdxlConfigs } from './sdxl.js';
import type { SyntheticControlNetSize } from './sizes.js';
import { writeHashSafetensors } from './write-safetensors.js';

/** Channels of the released ControlNets. https://huggingface.co/diffusers/controlnet-canny-sdxl-1.0/blob/main/config.json */
const HINT_CHANNELS: Readonly<Record<SyntheticControlNetSize, readonly number[]>> = {
  'sdxl-controlnet-tiny': [16, 32, 32, 32],
  'sdxl-controlnet': [16, 32, 96, 256],
};

/** Writes a ControlNet of made-up weights in diffusers' names, for the SDXL of the same size. */
export async function writeSyntheticControlNet(
  path: string,
  size: SyntheticControlNetSize,
  dtype: FloatType = 'F16',
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-synthetic-'));
  try {
    await copySdxlConfigs(folder, size === 'sdxl-controlnet-tiny' ? 'sdxl-tiny' : 'sdxl-base');
    const { unet } = await readSdxlConfig(folder);
    const config = { unet, middleDepth: unet.depth.at(-1) ?? 0, hintChannels: HINT_CHANNELS[size] };
    await writeHashSafetensors(path, { dtype, hashPrefix: 'controlnet.', tensors: planControlNetWeights(config) });
  } finally {
    await rm(folder, { recursive: true });
  }
}
