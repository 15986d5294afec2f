import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FloatType } from '../../src/graph/safetensors.js';
import { readWanConfig } from '../../src/pipelines/wan/config.js';
import { planWanWeights } from '../../src/pipelines/wan/weights.js';
import { writeHashSafetensors } from '../../src/synthetic/write-safetensors.js';

/** The goldens of the tiny WAN. */
export const wanGoldens = fileURLToPath(new URL('../fixtures/goldens/wan-tiny', import.meta.url));

export const TRANSFORMER = 'transformer/diffusion_pytorch_model.safetensors';
export const VAE = 'vae/diffusion_pytorch_model.safetensors';

/** The tiny WAN without its text encoder's weights, in diffusers layout and one storage type. */
export async function writeTinyWan(folder: string, dtype: FloatType): Promise<string> {
  await mkdir(folder, { recursive: true });
  await cp(join(wanGoldens, 'model-configs'), folder, { recursive: true });
  const plan = planWanWeights(await readWanConfig(folder));
  for (const [file, hashPrefix, tensors] of [
    [TRANSFORMER, 'a:transformer.', plan.transformer],
    [VAE, 'a:vae.', plan.vae],
  ] as const) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeHashSafetensors(join(folder, file), { dtype, hashPrefix, tensors });
  }
  return folder;
}

/** One for all tests of a file; what it returns takes it away again. */
export async function sharedTinyWan(dtype: FloatType): Promise<{ path: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  return { path: await writeTinyWan(join(folder, 'wan'), dtype), remove: () => rm(folder, { recursive: true }) };
}
