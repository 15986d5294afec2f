import { type DecodeOptions, decodeWhole } from './decode-reference.js';
import { resizeRgb } from './resize-rgb.js';

/**
 * Decodes a control image and stretches it to `width` x `height`, as diffusers does: an image of another shape is distorted, not
 * cropped. Of an animation it takes the first frame. Every colour space becomes sRGB, and transparency becomes black, which is what
 * control images have where they say nothing.
 * @returns row-major uint8 [height, width, 3]
 * @throws InferenceError REFERENCE_INVALID
 */
export async function decodeControl(
  bytes: Uint8Array,
  { width, height, maxPixels }: DecodeOptions,
): Promise<Uint8Array> {
  const { whole } = await decodeWhole(bytes, maxPixels, (image) =>
    image.flatten({ background: 'black' }).toColourspace('srgb'),
  );
  return resizeRgb(whole.data, whole.info, { width, height });
}
