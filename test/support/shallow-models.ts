import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readSdxlConfig } from '../../src/pipelines/sdxl/checkpoint/read-config.js';
import { planSdxlWeights } from '../../src/pipelines/sdxl/weights.js';
import { readWanConfig } from '../../src/pipelines/wan/checkpoint/read-config.js';
import { planWanWeights } from '../../src/pipelines/wan/weights.js';
import { findAsset } from '../../src/synthetic/assets.js';
import { writeHashSafetensors } from '../../src/synthetic/write-safetensors.js';
import type { FloatType } from '../../src/weights/safetensors.js';

/**
 * The tiny SDXL with half of its layers, for tests that ask nothing of single ones: it opens in half of the time. LoRAs of the
 * goldens are for the whole one.
 *
 * @returns the folder
 */
export async function writeShallowSdxl(folder: string): Promise<string> {
  await copyConfigs('tiny-sdxl', folder, {
    unet: { layers_per_block: 1, transformer_layers_per_block: [1, 1, 1] },
    vae: { layers_per_block: 1 },
  });
  await writeWeights(folder, planSdxlWeights(await readSdxlConfig(folder)), () => 'F16');
  return folder;
}

/** The same of the tiny WAN. */
export async function writeShallowWan(folder: string): Promise<string> {
  await copyConfigs('tiny-wan', folder, { vae: { num_res_blocks: 1 } });
  await writeWeights(folder, planWanWeights(await readWanConfig(folder)), (name) => (name === 'vae' ? 'F32' : 'BF16'));
  return folder;
}

async function copyConfigs(asset: string, folder: string, changes: Readonly<Record<string, object>>): Promise<void> {
  await cp(await findAsset(asset), folder, { recursive: true });
  for (const [component, values] of Object.entries(changes)) {
    const path = join(folder, component, 'config.json');
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), ...values }));
  }
}

type Plan = Readonly<Record<string, readonly (readonly [string, readonly number[]])[]>>;

async function writeWeights(folder: string, plan: Plan, typeOf: (component: string) => FloatType): Promise<void> {
  for (const [component, tensors] of Object.entries(plan)) {
    if (tensors.length === 0) continue;
    const file = component.startsWith('text') ? 'model.safetensors' : 'diffusion_pytorch_model.safetensors';
    const content = { dtype: typeOf(component), hashPrefix: `a:${component}.`, tensors };
    await writeHashSafetensors(join(folder, component, file), content);
  }
}
