import { FileError } from '../errors.js';
import type { Size } from './encode-image.js';
import { type ReferenceFormat, signatureOf } from './image-signature.js';
import { countJpegScans } from './jpeg-scans.js';
import { type Metadata, type OutputInfo, type ResizeOptions, type Sharp, type SharpOptions, sharp } from './sharp.js';

/** Decoding 50 megapixels takes a second or two. A file that takes this long was made for that. */
const MAX_DECODE_SECONDS = 30;

/** Progressive JPEGs have about 10 scans; each one costs a pass over all pixels. */
const MAX_JPEG_SCANS = 100;

/** Panoramas stay below 10. A line of pixels shows nothing, and libvips cannot scale one to cover an image. */
const MAX_ASPECT_RATIO = 32;

const NAMES: Readonly<Record<ReferenceFormat, string>> = { png: 'PNG', jpeg: 'JPEG', webp: 'WebP' };
const SEND_AN_IMAGE = 'send a PNG, a JPEG or a WebP';

/** Colours of a reference. */
const OPAQUE = (image: Sharp): Sharp => image.flatten({ background: 'white' }).toColourspace('srgb');

export interface DecodeOptions extends Size {
  /** Largest number of pixels of the file's own image, by its header. */
  readonly maxPixels: number;
}

export interface Reference {
  /** Row-major uint8 [height, width, 3], sRGB. */
  readonly rgb: Uint8Array;
  /** In pixels, as a viewer shows it: EXIF orientation applied. */
  readonly sourceWidth: number;
  readonly sourceHeight: number;
  readonly format: ReferenceFormat;
}

/**
 * Decodes an image that a caller sent and fits it to `width` x `height`: it is scaled to cover, and the rest is cropped evenly. Of an
 * animation it takes the first frame. Every colour space becomes sRGB, and transparency becomes white.
 *
 * While it works it holds three bytes for each pixel of the file's image; eight for a WebP.
 *
 * @throws InferenceError REFERENCE_INVALID
 */
export async function decodeReference(
  bytes: Uint8Array,
  { width, height, maxPixels }: DecodeOptions,
): Promise<Reference> {
  const { whole, format } = await decodeWhole(bytes, maxPixels, OPAQUE);
  const rgb = await sharp(whole.data, { raw: whole.info, limitInputPixels: maxPixels })
    .resize(width, height, COVER)
    .toBuffer();
  return { rgb, sourceWidth: whole.info.width, sourceHeight: whole.info.height, format };
}

/** Pixels that an image for an image encoder keeps: encoders take some 50,000. */
const MAX_ENCODED_PIXELS = 2 ** 21;

/**
 * The same without fitting, for an image encoder, which fits an image itself. A larger one is made smaller.
 * @param maxPixels as `DecodeOptions` has it
 * @throws InferenceError REFERENCE_INVALID
 */
export async function decodeWholeReference(
  bytes: Uint8Array,
  maxPixels: number,
): Promise<Size & { readonly rgb: Uint8Array }> {
  const { whole } = await decodeWhole(bytes, maxPixels, OPAQUE);
  const { width, height } = whole.info;
  const factor = Math.sqrt(MAX_ENCODED_PIXELS / (width * height));
  if (factor >= 1) return { rgb: whole.data, width, height };
  const size = { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
  const image = sharp(whole.data, { raw: whole.info, limitInputPixels: maxPixels });
  return { rgb: await image.resize({ ...size, fit: 'fill', kernel: 'lanczos3' }).toBuffer(), ...size };
}

/** How images are fitted: scaled to cover, and cropped evenly. */
export const COVER = { fit: 'cover', position: 'centre', kernel: 'lanczos3' } as const satisfies ResizeOptions;

/**
 * Decodes a file completely before it is fitted: libvips reads only what a crop needs and would not notice that a file ends early.
 * @param prepare the colours of the result
 * @throws InferenceError REFERENCE_INVALID
 */
export async function decodeWhole(
  bytes: Uint8Array,
  maxPixels: number,
  prepare: (image: Sharp) => Sharp,
): Promise<{ readonly whole: { readonly data: Buffer; readonly info: OutputInfo }; readonly format: ReferenceFormat }> {
  const format = formatOf(bytes);
  if (format === 'jpeg' && countJpegScans(bytes, MAX_JPEG_SCANS + 1) > MAX_JPEG_SCANS) {
    rejectImage(`is a JPEG of more than ${MAX_JPEG_SCANS} scans; send it as an ordinary JPEG`);
  }
  checkSize(await readHeader(bytes, format), maxPixels);
  const options: SharpOptions = { failOn: 'error', limitInputPixels: maxPixels };
  const whole = await prepare(sharp(bytes, options).autoOrient())
    .raw({ depth: 'uchar' })
    .timeout({ seconds: MAX_DECODE_SECONDS })
    .toBuffer({ resolveWithObject: true })
    .catch((error: unknown) => rejectDamaged(format, error));
  return { whole, format };
}

function formatOf(bytes: Uint8Array): ReferenceFormat {
  if (bytes.length === 0) return rejectImage(`is empty; ${SEND_AN_IMAGE}`);
  const signature = signatureOf(bytes);
  switch (signature.kind) {
    case 'reference':
      return signature.format;
    case 'video':
    case 'other':
      return rejectImage(`is ${signature.name}; ${SEND_AN_IMAGE}`);
    case 'unknown':
      return rejectImage(`does not begin like any known image format; ${SEND_AN_IMAGE}`);
  }
}

// Decodes no pixel. Sharp's own limit is off, because its error does not name the size.
async function readHeader(bytes: Uint8Array, format: ReferenceFormat): Promise<Metadata> {
  const header = await sharp(bytes, { failOn: 'error', limitInputPixels: false })
    .metadata()
    .catch((error: unknown) => rejectDamaged(format, error));
  if (header.format !== format)
    return rejectImage(`begins as a ${NAMES[format]} and continues as ${header.format}; ${SEND_AN_IMAGE}`);
  return header;
}

function checkSize({ width, height }: Size, maxPixels: number): void {
  const pixels = width * height;
  if (pixels > maxPixels) {
    rejectImage(`is ${width}x${height}, ${pixels} pixels, and the limit is ${maxPixels}; send a smaller image`);
  }
  if (Math.max(width, height) > MAX_ASPECT_RATIO * Math.min(width, height)) {
    rejectImage(
      `is ${width}x${height}, and a side may be at most ${MAX_ASPECT_RATIO} times the other; send an image nearer to a square`,
    );
  }
}

function rejectDamaged(format: ReferenceFormat, cause: unknown): never {
  const [line = ''] = (cause instanceof Error ? cause.message : String(cause)).split('\n');
  const said = line.replace(/[\s:]+$/, '');
  return rejectImage(`is a ${NAMES[format]} that is damaged or cut short (${said}); send the whole file`, cause);
}

function rejectImage(problem: string, cause?: unknown): never {
  throw new FileError('REFERENCE_INVALID', (file) => `${file} ${problem}`, { cause });
}
