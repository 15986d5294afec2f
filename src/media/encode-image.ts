import { exifUserComment, withJpegExif, withWebpMetadata } from './exif.js';
import { type ImageMetadata, parametersText } from './image-metadata.js';
import { withPngText, xmpKeyword } from './png-text.js';
import { type Sharp, sharp } from './sharp.js';
import { xmpPacket } from './xmp.js';

export const imageFormats = ['png', 'webp', 'jpeg'] as const;
export type ImageFormat = (typeof imageFormats)[number];

/** Quality of JPEG and WebP. It is above sharp's own 80, because callers keep these files. */
const DEFAULT_QUALITY = 90;
/** Rows are filtered, by which a picture takes about half of the bytes. Then zlib's higher levels cost more than they save: `bench -- files`. */
const PNG = { adaptiveFiltering: true, compressionLevel: 3 } as const;

/**
 * Largest length of each text, in UTF-16 units. EXIF in a JPEG is one segment of 65,533 bytes, two per unit. Prompt and negative prompt
 * of this length, and weights of it, twice as long once quoted, leave 2,700 units for the settings.
 */
const MAX_EXIF_TEXT_UNITS = 7500;

export interface Size {
  /** In pixels. */
  readonly width: number;
  readonly height: number;
}

export interface EncodeOptions {
  readonly format: ImageFormat;
  /** Quality of JPEG and WebP, 1 to 100. PNG is lossless and ignores it. Omitted: 90. */
  readonly quality?: number | undefined;
  /** Omitted: no metadata is written. */
  readonly metadata?: ImageMetadata | undefined;
}

export interface EncodedImage {
  readonly bytes: Uint8Array;
  readonly contentType: string;
}

/**
 * Encodes interleaved uint8 [height, width, 3] as a file. Metadata does not change any pixel.
 * @throws sharp's error, for example for a WebP of more than 16383 pixels per side
 */
export async function encodeImage(
  rgb: Uint8Array,
  { width, height }: Size,
  { format, quality = DEFAULT_QUALITY, metadata = { kind: 'none' } }: EncodeOptions,
): Promise<EncodedImage> {
  const image = sharp(rgb, { raw: { width, height, channels: 3 } });
  switch (format) {
    case 'png':
      return { bytes: await encodePng(image, metadata), contentType: 'image/png' };
    case 'webp':
      return {
        bytes: await encodeLossy(image.webp({ quality }), metadata, (file, exif) =>
          withWebpMetadata(file, 'EXIF', exif),
        ),
        contentType: 'image/webp',
      };
    case 'jpeg': {
      // Colour at full resolution: at half of it, saturated edges in drawings bleed.
      const jpeg = image.jpeg({ quality, chromaSubsampling: '4:4:4' });
      return { bytes: await encodeLossy(jpeg, metadata, withJpegExif), contentType: 'image/jpeg' };
    }
  }
}

/** An animated WebP with the metadata that a still one has. */
export function withAnimationMetadata(webp: Buffer, metadata: ImageMetadata): Buffer {
  if (metadata.kind === 'none') return webp;
  const parameters = metadata.kind === 'full' ? metadata.parameters : undefined;
  const marked = withWebpMetadata(webp, 'XMP ', Buffer.from(xmpPacket(parameters)));
  if (parameters === undefined) return marked;
  return withWebpMetadata(marked, 'EXIF', exifUserComment(parametersText(parameters, MAX_EXIF_TEXT_UNITS)));
}

async function encodePng(image: Sharp, metadata: ImageMetadata): Promise<Uint8Array> {
  const png = await image.png(PNG).toBuffer();
  if (metadata.kind === 'none') return png;
  const parameters = metadata.kind === 'full' ? metadata.parameters : undefined;
  return withPngText(png, [
    ...(parameters === undefined ? [] : [{ keyword: 'parameters', text: parametersText(parameters) }]),
    { keyword: xmpKeyword, text: xmpPacket(parameters) },
  ]);
}

async function encodeLossy(
  image: Sharp,
  metadata: ImageMetadata,
  withExif: (file: Buffer, exif: Buffer) => Buffer,
): Promise<Uint8Array> {
  if (metadata.kind === 'none') return image.toBuffer();
  const parameters = metadata.kind === 'full' ? metadata.parameters : undefined;
  const file = await image.withXmp(xmpPacket(parameters)).toBuffer();
  return parameters === undefined
    ? file
    : withExif(file, exifUserComment(parametersText(parameters, MAX_EXIF_TEXT_UNITS)));
}
