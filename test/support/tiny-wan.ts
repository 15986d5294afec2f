import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import type { SyntheticWanSize } from '../../src/synthetic/sizes.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import type { FloatType } from '../../src/weights/safetensors.js';

export function goldens(name: string): string {
  return fileURLToPath(new URL(`../fixtures/goldens/${name}`, import.meta.url));
}

/** The goldens of the tiny WAN. */
export const wanGoldens = goldens('wan-tiny');

export const TRANSFORMER = 'transformer/diffusion_pytorch_model.safetensors';
export const VAE = 'vae/diffusion_pytorch_model.safetensors';

/** The tiny WAN in diffusers layout and one storage type. */
export function writeTinyWan(folder: string, dtype: FloatType): Promise<string> {
  return writeSyntheticWan(folder, 'wan-tiny', dtype);
}

/** One for all tests of a file; what it returns takes it away again. */
export async function sharedTinyWan(
  dtype: FloatType,
  size: SyntheticWanSize = 'wan-tiny',
): Promise<{ path: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  const path = await writeSyntheticWan(join(folder, 'wan'), size, dtype);
  return { path, remove: () => rm(folder, { recursive: true }) };
}

/** A video of nine small frames. */
export const tinyVideo: GenerationRequest = {
  prompt: 'a red kite over a field',
  negativePrompt: 'blurry',
  width: 32,
  height: 32,
  steps: 4,
  guidanceScale: 5,
  scheduler: 'flow_unipc',
  seeds: [3],
  video: { frames: 9, shift: 5 },
};
