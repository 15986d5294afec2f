import type { FloatType } from '../weights/safetensors.js';
import {
  syntheticControlNetSizes,
  syntheticEmbeddingSizes,
  syntheticImageEncoderSizes,
  syntheticIpAdapterSizes,
  syntheticQwenSizes,
  syntheticSizes,
  syntheticUpscalerSizes,
  syntheticWanSizes,
} from './sizes.js';

/** Writes a model to a path. @param dtype storage type of the weights; omitted, the released model's */
type WriteModel = (path: string, dtype?: FloatType) => Promise<unknown>;

/** Models with made-up weights by name. The code that writes one is imported when it is called. */
export const syntheticModels: ReadonlyMap<string, WriteModel> = new Map<string, WriteModel>([
  ...rows(syntheticSizes, async (path, size, dtype) =>
    (await import('./sdxl.js')).writeSyntheticSdxl(path, size, dtype),
  ),
  ...rows(syntheticWanSizes, async (path, size, dtype) =>
    (await import('./wan.js')).writeSyntheticWan(path, size, dtype),
  ),
  ...rows(syntheticEmbeddingSizes, async (path, size, dtype) =>
    (await import('./embedding.js')).writeSyntheticEmbedding(path, size, dtype),
  ),
  ...rows(syntheticControlNetSizes, async (path, size, dtype) =>
    (await import('./controlnet.js')).writeSyntheticControlNet(path, size, dtype),
  ),
  ...rows(syntheticImageEncoderSizes, async (path, size, dtype) =>
    (await import('./ip-adapter.js')).writeSyntheticImageEncoder(path, size, dtype),
  ),
  ...rows(syntheticIpAdapterSizes, async (path, size, dtype) =>
    (await import('./ip-adapter.js')).writeSyntheticIpAdapter(path, size, dtype),
  ),
  ...rows(syntheticUpscalerSizes, async (path, size, dtype) =>
    (await import('./upscaler.js')).writeSyntheticUpscaler(path, size, dtype),
  ),
  ...rows(syntheticQwenSizes, async (path, size, dtype) =>
    (await import('./qwen.js')).writeSyntheticQwen(path, size, dtype),
  ),
]);

function rows<Size extends string>(
  sizes: readonly Size[],
  write: (path: string, size: Size, dtype?: FloatType) => Promise<unknown>,
): readonly (readonly [string, WriteModel])[] {
  return sizes.map((size) => [size, (path, dtype) => write(path, size, dtype)] as const);
}
