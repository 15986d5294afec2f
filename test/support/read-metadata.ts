import { crc32 } from 'node:zlib';
import sharp from 'sharp';

export interface PngChunk {
  readonly type: string;
  readonly body: Buffer;
}

/** Every chunk of a PNG, its CRC checked. */
export function pngChunks(bytes: Uint8Array): readonly PngChunk[] {
  const png = Buffer.from(bytes);
  const chunks: PngChunk[] = [];
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const typed = png.subarray(at + 4, at + 8 + length);
    const type = typed.toString('latin1', 0, 4);
    if (png.readUInt32BE(at + 8 + length) !== crc32(typed)) throw new Error(`the CRC of ${type} is wrong`);
    chunks.push({ type, body: typed.subarray(4) });
    at += 12 + length;
  }
  return chunks;
}

/** The text that A1111 would find: of a PNG its `parameters`, else the UserComment. */
export async function readParameters(bytes: Uint8Array): Promise<string | undefined> {
  const { format, exif } = await sharp(bytes).metadata();
  if (format !== 'png') return exif && userComment(exif);
  for (const { type, body } of pngChunks(bytes)) {
    if (type === 'tEXt' && body.toString('latin1').startsWith('parameters\0')) return body.toString('latin1', 11);
    if (type === 'iTXt' && body.toString('latin1').startsWith('parameters\0\0\0\0\0')) return body.toString('utf8', 15);
  }
  return undefined;
}

/** A property of the XMP packet that sharp finds, or undefined. */
export async function xmpProperty(bytes: Uint8Array, name: string): Promise<string | undefined> {
  const packet = (await sharp(bytes).metadata()).xmp?.toString('utf8') ?? '';
  const value = new RegExp(`<Iptc4xmpExt:${name}>([^<>]*)</Iptc4xmpExt:${name}>`).exec(packet)?.[1];
  return value?.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
}

// Walks the directories as a reader of any EXIF does, in either byte order.
function userComment(exif: Buffer): string {
  const tiff = exif.toString('latin1', 0, 4) === 'Exif' ? exif.subarray(6) : exif;
  const little = tiff.toString('latin1', 0, 2) === 'II';
  const u16 = (at: number) => (little ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
  const u32 = (at: number) => (little ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at));
  const entry = (directory: number, tag: number) => {
    for (let i = 0; i < u16(directory); i++) {
      const at = directory + 2 + 12 * i;
      if (u16(at) === tag) return { count: u32(at + 4), value: u32(at + 8) };
    }
    throw new Error(`EXIF has no tag ${tag.toString(16)}`);
  };
  const { count, value } = entry(entry(u32(4), 0x8769).value, 0x9286);
  const code = tiff.toString('latin1', value, value + 8);
  if (code !== 'UNICODE\0') throw new Error(`the comment is in ${code}`);
  const text = Buffer.from(tiff.subarray(value + 8, value + count));
  return (little ? text : text.swap16()).toString('utf16le');
}
