import { COVER, type DecodeOptions, decodeWhole } from './decode-reference.js';
import { type Sharp, sharp } from './sharp.js';

const ALPHA = 3;
const OPAQUE = 255;
/** Luminance of red, green and blue, ITU-R BT.601. */
const LUMINANCE: [number, number, number] = [0.299, 0.587, 0.114];
/** libvips blurs from 0.3 pixels on; less is not seen. */
const MIN_BLUR = 0.3;

/**
 * Decodes a mask and fits it as `decodeReference` fits the image that it belongs to. libvips does all of it in its own threads.
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
  const limit = { limitInputPixels: maxPixels };
  const pixels = (): Sharp => sharp(whole.data, { raw: whole.info, ...limit });
  // The levels first, then the fitting: within one call libvips would fit the colours.
  const levels = await gray((await isOpaque(pixels())) ? luminance(pixels()) : pixels().extractChannel(ALPHA).negate());
  const raw = { width: whole.info.width, height: whole.info.height, channels: 1 } as const;
  const fitted = sharp(levels, { raw, ...limit }).resize(width, height, COVER);
  return gray(blur >= MIN_BLUR ? fitted.blur(blur) : fitted);
}

async function isOpaque(rgba: Sharp): Promise<boolean> {
  const alpha = await rgba.extractChannel(ALPHA).raw().toBuffer({ resolveWithObject: true });
  const { channels } = await sharp(alpha.data, { raw: alpha.info, limitInputPixels: false }).stats();
  return channels[0]?.min === OPAQUE;
}

function luminance(rgba: Sharp): Sharp {
  // libvips cuts fractions off; half a level rounds them.
  return rgba.removeAlpha().recomb([LUMINANCE, LUMINANCE, LUMINANCE]).linear(1, 0.5).extractChannel(0);
}

function gray(image: Sharp): Promise<Buffer> {
  return image.toColourspace('b-w').raw({ depth: 'uchar' }).toBuffer();
}
