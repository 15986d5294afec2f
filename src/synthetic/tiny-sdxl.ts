import { cp, mkdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FloatType } from '../graph/safetensors.js';
import { readSdxlConfig } from '../pipelines/sdxl/config.js';
import { type NetworkName, networkNames, planSdxlWeights } from '../pipelines/sdxl/weights.js';
import { writeHashSafetensors } from './write-safetensors.js';

const FILES: Readonly<Record<NetworkName, string>> = {
  text_encoder: 'model.safetensors',
  text_encoder_2: 'model.safetensors',
  unet: 'diffusion_pytorch_model.safetensors',
  vae: 'diffusion_pytorch_model.safetensors',
};

/**
 * Makes a tiny SDXL in diffusers layout: the real architecture, file layout and names, 2 million hash weights (its pictures
 * are noise). Does nothing where one is already whole.
 *
 * @returns the folder
 */
export async function writeTinySdxl(folder: string, dtype: FloatType = 'F16'): Promise<string> {
  const last = join(folder, 'vae', FILES.vae);
  if (await stat(last).catch(() => undefined)) return folder;
  await mkdir(folder, { recursive: true });
  await cp(await findAssets(), folder, { recursive: true });
  const plan = planSdxlWeights(await readSdxlConfig(folder));
  for (const name of networkNames) {
    const hashPrefix = `a:${name}.`;
    await writeHashSafetensors(join(folder, name, FILES[name]), { dtype, hashPrefix, tensors: plan[name] });
  }
  return folder;
}

/** `assets/tiny-sdxl` of the package: above this file as source, and one level more as build. */
async function findAssets(): Promise<string> {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (folder !== dirname(folder)) {
    const assets = join(folder, 'assets', 'tiny-sdxl');
    if (await stat(assets).catch(() => undefined)) return assets;
    folder = dirname(folder);
  }
  throw new Error('assets/tiny-sdxl is missing from this installation');
}
