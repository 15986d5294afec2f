import { crc32 } from 'node:zlib';

/** The signature and IHDR, which must come first. https://www.w3.org/TR/png-3/#5ChunkOrdering */
const START_BYTES = 8 + 25;

export interface PngText {
  readonly keyword: string;
  readonly text: string;
}

/** Adds text before the pixels of a PNG, where tools find it without reading the image. */
export function withPngText(png: Buffer, texts: readonly PngText[]): Buffer {
  return Buffer.concat([png.subarray(0, START_BYTES), ...texts.map(textChunk), png.subarray(START_BYTES)]);
}

// Old tools read tEXt. It is Latin-1, which some of them take for UTF-8, so only ASCII is safe there. XMP is always iTXt.
function textChunk({ keyword, text }: PngText): Buffer {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII is what the chunk can hold.
  if (/^[\x00-\x7f]*$/.test(text) && keyword !== xmpKeyword) return chunk('tEXt', `${keyword}\0${text}`);
  // Not compressed, without a language and a translated keyword.
  return chunk('iTXt', `${keyword}\0\0\0\0\0${text}`);
}

/** The keyword under which a PNG holds XMP. */
export const xmpKeyword = 'XML:com.adobe.xmp';

function chunk(type: 'tEXt' | 'iTXt', payload: string): Buffer {
  const body = Buffer.from(type + payload, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length - type.length);
  const crc = Buffer.alloc(4);
  crc.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, crc]);
}
