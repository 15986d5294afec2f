import sharp, { type Sharp } from 'sharp';
import { exifUserComment, withJpegExif, withWebpExif } from './exif.js';
import { type ImageMetadata, parametersText } from './image-metadata.js';
import { withPngText, xmpKeyword } from './png-text.js';
import { xmpPacket } from './xmp.js';

export const imageFormats = ['png', 'webp', 'jpeg'] as const;
export type ImageFormat = (typeof imageFormats)[number];

/** Of JPEG and WebP. Above sharp's own 80: these are the files that callers keep, not copies for a page. */
export const DEFAULT_QUALITY = 90;

/**
 * EXIF in a JPEG is one segment of 65,533 bytes, two of them a UTF-16 unit. Prompt and negative prompt of this many units and weights of
 * the same, twice as long once quoted, leave 2,700 units to the settings.
 */
const MAX_EXIF_TEXT_UNITS = 7500;

export interface Size {
  /** In pixels. */
  readonly width: number;
  readonly height: number;
}

export interface EncodeOptions {
  readonly format: ImageFormat;
  /** 1 to 100, of JPEG and WebP; PNG is lossless whatever it says. Omitted: 90. */
  readonly quality?: number | undefined;
  /** Omitted: none is written. */
  readonly metadata?: ImageMetadata | undefined;
}

export interface EncodedImage {
  readonly bytes: Uint8Array;
  readonly contentType: string;
}

/**
 * A file of interleaved uint8 [height, width, 3]. Metadata does not touch a pixel.
 * @throws what sharp does: a WebP has at most 16383 pixels a side
 */
export async function encodeImage(
  rgb: Uint8Array,
  { width, height }: Size,
  { format, quality = DEFAULT_QUALITY, metadata = { kind: 'none' } }: EncodeOptions,
): Promise<EncodedImage> {
  const picture = sharp(rgb, { raw: { width, height, channels: 3 } });
  switch (format) {
    case 'png':
      return { bytes: await encodePng(picture, metadata), contentType: 'image/png' };
    case 'webp':
      return { bytes: await encodeLossy(picture.webp({ quality }), metadata, withWebpExif), contentType: 'image/webp' };
    case 'jpeg': {
      // Colour at full resolution: at half, saturated edges of drawings bleed.
      const jpeg = picture.jpeg({ quality, chromaSubsampling: '4:4:4' });
      return { bytes: await encodeLossy(jpeg, metadata, withJpegExif), contentType: 'image/jpeg' };
    }
  }
}

async function encodePng(picture: Sharp, metadata: ImageMetadata): Promise<Uint8Array> {
  const png = await picture.png({ compressionLevel: 6 }).toBuffer();
  if (metadata.kind === 'none') return png;
  const parameters = metadata.kind === 'full' ? metadata.parameters : undefined;
  return withPngText(png, [
    ...(parameters === undefined ? [] : [{ keyword: 'parameters', text: parametersText(parameters) }]),
    { keyword: xmpKeyword, text: xmpPacket(parameters) },
  ]);
}

async function encodeLossy(
  picture: Sharp,
  metadata: ImageMetadata,
  withExif: (file: Buffer, exif: Buffer) => Buffer,
): Promise<Uint8Array> {
  if (metadata.kind === 'none') return picture.toBuffer();
  const parameters = metadata.kind === 'full' ? metadata.parameters : undefined;
  const file = await picture.withXmp(xmpPacket(parameters)).toBuffer();
  return parameters === undefined
    ? file
    : withExif(file, exifUserComment(parametersText(parameters, MAX_EXIF_TEXT_UNITS)));
}
