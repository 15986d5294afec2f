import type { TransformerConfig } from './model/config.js';
import { frameConditioningOf } from './model/variant.js';

/** Largest area at which image-to-video takes the smaller shift, in pixels. */
const SMALL_AREA = 832 * 480;

/**
 * The shift of the flow's noise levels where a request has none: what the original code takes, but for VACE, which is served with
 * the text-to-video models' and not with its 16.
 *
 * https://github.com/Wan-Video/Wan2.1/blob/9737cba9c1c3c4d04b33fcad41c111989865d315/generate.py#L76
 *
 * @param size in pixels
 */
export function flowShiftOf(transformer: TransformerConfig, size: { width: number; height: number }): number {
  const { method, needs } = frameConditioningOf(transformer);
  if (method !== 'image_conditioning') return 5;
  if (needs.includes('end')) return 16;
  return size.width * size.height <= SMALL_AREA ? 3 : 5;
}
