import { planUpscalerWeights } from '../pipelines/upscalers/upscaler.js';
import type { FloatType } from '../weights/safetensors.js';
import type { SyntheticUpscalerSize } from './sizes.js';
import { writeHashSafetensors } from './write-safetensors.js';

/** Sizes of Real-ESRGAN's network for 4x: https://github.com/xinntao/Real-ESRGAN/blob/v0.3.0/inference_realesrgan.py */
const SIZES: Readonly<Record<SyntheticUpscalerSize, { channels: number; growth: number; blocks: number }>> = {
  'upscaler-tiny': { channels: 8, growth: 4, blocks: 1 },
  upscaler: { channels: 64, growth: 32, blocks: 23 },
};
const SCALE = { doublings: 2, unshuffle: 1, scale: 4 } as const;

/** Writes an upscaler of made-up weights, ESRGAN in Real-ESRGAN's names. */
export function writeSyntheticUpscaler(
  path: string,
  size: SyntheticUpscalerSize,
  dtype: FloatType = 'F32',
): Promise<void> {
  const tensors = planUpscalerWeights({ kind: 'esrgan', ...SIZES[size], ...SCALE });
  return writeHashSafetensors(path, { dtype, hashPrefix: 'upscaler.', tensors });
}
