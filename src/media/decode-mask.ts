import sharp from 'sharp';
import { COVER, type DecodeOptions, decodeWhole } from './decode-reference.js';

const OPAQUE = 255;

/**
 * Decodes a mask and fits it as `decodeReference` fits the image that it belongs to.
 *
 * @param blur standard deviation of a Gaussian blur after it, in pixels
 * @returns uint8 [height, width]: 255 where the image is drawn anew. That is where the mask is white; of a mask with transparent
 *   pixels, where it is transparent
 * @throws InferenceError REFERENCE_INVALID
 */
export async function decodeMask(
  bytes: Uint8Array,
  { width, height, maxPixels }: DecodeOptions,
  blur: number,
): Promise<Uint8Array> {
  const { whole } = await decodeWhole(bytes, maxPixels, (image) => image.ensureAlpha().toColourspace('srgb'));
  const { data, info } = whole;
  const pixels = info.width * info.height;
  const levels = new Uint8Array(pixels);
  let isOpaque = true;
  for (let i = 0; i < pixels; i += 1) if (data[4 * i + 3] !== OPAQUE) isOpaque = false;
  for (let i = 0; i < pixels; i += 1) {
    const [red = 0, green = 0, blue = 0, alpha = OPAQUE] = data.subarray(4 * i, 4 * i + 4);
    levels[i] = isOpaque ? Math.round(0.299 * red + 0.587 * green + 0.114 * blue) : OPAQUE - alpha;
  }
  const raw = { width: info.width, height: info.height, channels: 1 } as const;
  const fitted = sharp(levels, { raw, limitInputPixels: maxPixels }).resize(width, height, COVER);
  // libvips blurs from 0.3 pixels on; less is not seen.
  const blurred = blur >= MIN_BLUR ? fitted.blur(blur) : fitted;
  return blurred.toColourspace('b-w').raw({ depth: 'uchar' }).toBuffer();
}

const MIN_BLUR = 0.3;
