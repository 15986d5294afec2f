/** Types and tags of EXIF 2.32. https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf */
const LONG = 4;
const UNDEFINED = 7;
const EXIF_IFD_POINTER = 0x8769;
const USER_COMMENT = 0x9286;

const HEADER_BYTES = 8;
/** Size of a directory: a count, one entry, and the offset of the next directory. */
const DIRECTORY_BYTES = 2 + 12 + 4;

/**
 * EXIF with one entry, a UserComment in UTF-16, big-endian throughout as A1111 writes it. It is written by hand, because libvips writes
 * comments as ASCII and replaces every other letter by a question mark.
 */
export function exifUserComment(text: string): Buffer {
  // Offsets count from the start of the TIFF header.
  const exifDirectory = HEADER_BYTES + DIRECTORY_BYTES;
  const value = exifDirectory + DIRECTORY_BYTES;
  const comment = Buffer.concat([Buffer.from('UNICODE\0', 'latin1'), Buffer.from(text, 'utf16le').swap16()]);
  return Buffer.concat([
    Buffer.from('MM\0*\0\0\0\b', 'latin1'),
    directoryOf(EXIF_IFD_POINTER, LONG, 1, exifDirectory),
    directoryOf(USER_COMMENT, UNDEFINED, comment.length, value),
    comment,
  ]);
}

function directoryOf(tag: number, type: number, count: number, value: number): Buffer {
  const directory = Buffer.alloc(DIRECTORY_BYTES);
  directory.writeUInt16BE(1, 0);
  directory.writeUInt16BE(tag, 2);
  directory.writeUInt16BE(type, 4);
  directory.writeUInt32BE(count, 6);
  directory.writeUInt32BE(value, 10);
  return directory;
}

/** Inserts EXIF after the first marker of a JPEG, as the standard requires. */
export function withJpegExif(jpeg: Buffer, exif: Buffer): Buffer {
  const payload = Buffer.concat([Buffer.from('Exif\0\0', 'latin1'), exif]);
  const segment = Buffer.alloc(4);
  segment.writeUInt16BE(0xffe1, 0);
  // Throws above 65,535. A segment's length includes the length field.
  segment.writeUInt16BE(payload.length + 2, 2);
  return Buffer.concat([jpeg.subarray(0, 2), segment, payload, jpeg.subarray(2)]);
}

const RIFF_HEADER_BYTES = 12;
const CHUNK_HEADER_BYTES = 8;
const FLAGS_OFFSET = RIFF_HEADER_BYTES + CHUNK_HEADER_BYTES;
/** Chunks of metadata, and their flags in the header of the extended format. */
const METADATA_CHUNKS = { EXIF: 0x08, 'XMP ': 0x04 } as const;

/**
 * Appends metadata to a WebP in the extended format, which a WebP with XMP and an animated one have. Readers accept metadata chunks in
 * any order.
 * https://developers.google.com/speed/webp/docs/riff_container#extended_file_format
 */
export function withWebpMetadata(webp: Buffer, chunk: keyof typeof METADATA_CHUNKS, metadata: Buffer): Buffer {
  if (webp.toString('latin1', RIFF_HEADER_BYTES, RIFF_HEADER_BYTES + 4) !== 'VP8X') {
    throw new Error('the WebP is not in the extended format; write its XMP first');
  }
  const header = Buffer.alloc(CHUNK_HEADER_BYTES);
  header.write(chunk, 'latin1');
  header.writeUInt32LE(metadata.length, 4);
  const file = Buffer.concat([webp, header, metadata, Buffer.alloc(metadata.length % 2)]);
  file.writeUInt32LE(file.length - CHUNK_HEADER_BYTES, 4);
  file.writeUInt8(file.readUInt8(FLAGS_OFFSET) | METADATA_CHUNKS[chunk], FLAGS_OFFSET);
  return file;
}
